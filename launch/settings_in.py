"""Settings at the door: environment over TOML file over defaults, and one sentence when something is wrong.

Nothing below reads the environment. A value is never repeated in a message: it might be a secret in the wrong place.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError
from pydantic_settings.sources import EnvSettingsSource

from contracts.errors import SettingsError
from contracts.settings import Settings

PREFIX = "TRIAGE_"
CONFIG = "TRIAGE_CONFIG"  # the TOML file, where no --config is given
MASK = "**********"

# Kubernetes puts these into every pod of a namespace that holds a Service named triage-…: they are no settings of ours.
_SERVICE_LINK = re.compile(
    r"TRIAGE(_[A-Z0-9]+)*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP).*)?)"
)
_CLASSES: dict[type, str] = {
    bool: "a boolean",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a list",
    dict: "a table",
}


def load(config: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The effective settings. ``config`` is a TOML file; without it ``TRIAGE_CONFIG`` names one, or there is none.

    Raises SettingsError, whose message is one sentence that names every unknown or wrong setting, never its value.
    """
    env = dict(os.environ if environ is None else environ)
    path = str(config or env.get(CONFIG, ""))
    from_file = _from_file(path)
    from_env = _from_environment(env)
    origin = _Origin(path, env)
    unknown = [*_unknown_variables(env), *origin.unknown_keys(from_file)]
    if unknown:
        raise SettingsError("; ".join(unknown) + ".")
    try:
        return Settings.model_validate(_over(_tables(), _over(from_file, from_env)))
    except ValidationError as wrong:
        raise SettingsError("; ".join(_sentences(wrong, origin)) + ".") from None


class _Source(Settings, BaseSettings):
    """Settings as pydantic-settings reads them from an environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="ignore", frozen=True)


class _Environment(EnvSettingsSource):
    """Reads the mapping it is given; a list of names may be written with commas instead of as JSON."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._given = environ
        super().__init__(_Source)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._given.items() if name.upper() != CONFIG}

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        text = str(value).strip()
        if field.annotation == tuple[str, ...] and not text.startswith("["):
            return [part.strip() for part in text.split(",") if part.strip()]
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            several = ", or one variable for each setting" if field_name in Settings.model_fields else ""
            raise SettingsError(f"{self._place(field_name, value)} must be JSON{several}.") from None

    def _place(self, field_name: str, value: Any) -> str:
        """The setting as the person wrote it; the library tells the last part of its name."""
        for dotted in (*names(), *Settings.model_fields):
            variable = variable_of(dotted)
            if dotted.split(".")[-1] == field_name and self._given.get(variable) == value:
                return f"{dotted} ({variable})"
        return field_name


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        return _Environment(environ)()
    except SourceError as broken:  # of the library's own making; what is no JSON was told above
        raise SettingsError(f"The environment cannot be read as settings: {type(broken).__name__}.") from None


def _from_file(path: str) -> dict[str, Any]:
    if not path:
        return {}
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as problem:
        raise SettingsError(f"The settings file {path} cannot be read: {problem.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise SettingsError(f"The settings file {path} is not TOML: {_position(problem)}.") from None
    _refuse_masked(table, path)
    return table


def _position(problem: Exception) -> str:
    place = re.search(r"\(at (line \d+, column \d+)\)", str(problem))
    return place.group(1) if place else "its encoding or its end is wrong"


def _refuse_masked(table: Mapping[str, Any], path: str) -> None:
    for name, value in _leaves(table):
        if isinstance(value, str) and MASK in value:
            raise SettingsError(f"{name} in {path} holds the mask that triage config prints, not the secret.")


def _leaves(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        dotted = f"{above}{name}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{dotted}.")
        else:
            yield dotted, value


def _tables() -> dict[str, Any]:
    """The defaults of table-valued settings, so that one entry can be set without repeating the others."""
    defaults = Settings().model_dump()
    tables: dict[str, Any] = {}
    for section, values in defaults.items():
        if isinstance(values, dict):
            tables[section] = {n: {str(k): v for k, v in t.items()} for n, t in values.items() if isinstance(t, dict)}
    return tables


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            merged[name] = _over(under, value)
        else:
            merged[name] = value
    return merged


def names(model: type[BaseModel] = Settings, above: str = "") -> Iterator[str]:
    """Every setting, dotted: ``kafka.bootstrap`` …; sections themselves are not told."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from names(inner, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def variable_of(dotted: str) -> str:
    """``kafka.bootstrap`` → ``TRIAGE_KAFKA__BOOTSTRAP``."""
    return PREFIX + dotted.replace(".", "__").upper()


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    return [_unknown(name, name, _variables()) for name in sorted(environ) if _ours(name) and not _known(name)]


def _ours(variable: str) -> bool:
    return variable.upper().startswith(PREFIX) and variable.upper() != CONFIG and not _service_link(variable)


def _service_link(variable: str) -> bool:
    return "__" not in variable and _SERVICE_LINK.fullmatch(variable) is not None


def _variables() -> list[str]:
    return [*(variable_of(name) for name in names()), CONFIG]


def _known(variable: str) -> bool:
    """A setting's own name, a section as JSON, or an entry of a table-valued setting."""
    upper = variable.upper()
    sections = {variable_of(name) for name in Settings.model_fields}
    return upper in sections or any(upper == v or upper.startswith(f"{v}__") for v in _variables())


def _unknown(told: str, sought: str, known: list[str]) -> str:
    near = get_close_matches(sought, known, n=1, cutoff=0.75)
    hint = f"perhaps {near[0]} is meant" if near else "triage config prints those there are"
    return f"There is no setting {told}: {hint}"


class _Origin:
    """Where a value came from, to name it as the person wrote it."""

    def __init__(self, path: str, environ: Mapping[str, str]) -> None:
        self._path = path
        self._variables = {name.upper() for name in environ}

    def of(self, location: tuple[str | int, ...]) -> str:
        dotted = ".".join(str(part) for part in location)
        variable = self._variable(location)
        if variable:
            return f"{dotted} ({variable})"
        return f"{dotted} (in {self._path})" if self._path else dotted

    def _variable(self, location: tuple[str | int, ...]) -> str:
        for length in range(len(location), 0, -1):
            name = variable_of(".".join(str(part) for part in location[:length]))
            if name in self._variables:
                return name
        return ""

    def unknown_keys(self, table: Mapping[str, Any]) -> list[str]:
        known = list(names())
        wrong = [name for name, _ in _leaves(table) if not _within(name, known)]
        return [_unknown(f"{name} (in {self._path})", name, known) for name in wrong]


def _within(name: str, known: list[str]) -> bool:
    """A setting, an entry of a table-valued one, or a section that is not written as a table (told as wrong, later)."""
    sections = {setting.split(".")[0] for setting in known}
    return name in sections or any(name == setting or name.startswith(f"{setting}.") for setting in known)


def _sentences(wrong: ValidationError, origin: _Origin) -> list[str]:
    told = []
    for error in wrong.errors(include_url=False, include_context=True):
        location = tuple(part for part in error["loc"] if part != "[key]")
        told.append(_sentence(origin.of(location) or "The settings", error))
    return told


def _sentence(place: str, error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return f"There is no setting {place}: triage config prints those there are"
    if error["type"] == "value_error":
        return f"{place} is wrong: {error['ctx']['error']}"
    allowed = str(error["msg"]).split(", unable to")[0].removeprefix("Input ").replace("should", "must", 1)
    return f"{place} {_plain(allowed)}, and {_class_of(error['input'])} was given"


def _plain(allowed: str) -> str:
    return allowed.replace("valid integer", "whole number").replace("valid ", "").replace("String must", "must")


def _class_of(value: object) -> str:
    if isinstance(value, str):
        return _class_of_text(value)
    return _CLASSES.get(type(value), "another kind of value")


def _class_of_text(value: str) -> str:
    """What a variable's text looks like, without telling it."""
    if not value:
        return "nothing"
    for kind in (int, float):
        try:
            kind(value)
        except ValueError:
            continue
        return _CLASSES[kind]
    return "text"
