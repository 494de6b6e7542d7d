"""The effective settings as a person may see them: TOML or plain types, secrets masked."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, SecretStr

from contracts.settings import Settings
from launch.settings_in import MASK


def as_toml(settings: Settings) -> str:
    """TOML that ``load`` reads back to the same settings, as long as no secret is set: a mask is refused there."""
    values = masked(settings)
    lines = [f"{name} = {_toml(value)}" for name, value in values.items() if not isinstance(value, dict)]
    for name, section in values.items():
        if isinstance(section, dict):
            lines += ["", f"[{name}]", *_section(type(getattr(settings, name)), section)]
    return "\n".join(lines) + "\n"


def _section(model: type[BaseModel], values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        description = model.model_fields[name].description
        yield f"{name} = {_toml(value)}" + (f"  # {description}" if description else "")


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(inner) for inner in value) + "]"
    return json.dumps(value, ensure_ascii=False)  # TOML's strings, numbers and booleans are written as JSON's


def masked(settings: Settings) -> dict[str, Any]:
    """The effective values as plain types; a set secret is masked, a URL keeps scheme, host and path."""
    return {name: _masked(getattr(settings, name)) for name in type(settings).model_fields}


def _masked(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return _masked_secret(value.get_secret_value())
    if isinstance(value, BaseModel):
        return {name: _masked(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): _masked(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_masked(inner) for inner in value]
    return str(value) if isinstance(value, str) else value


def _masked_secret(secret: str) -> str:
    """``redis://user:pw@host/0?password=x`` → ``redis://**********@host/0?**********``; other secrets vanish whole."""
    url = re.fullmatch(r"([a-z+]+://)(?:(.*)@)?([^@?#]*)([?#].+)?", secret)
    if not url:
        return MASK if secret else ""
    scheme, user, rest, query = url.groups()
    return scheme + (f"{MASK}@" if user is not None else "") + rest + (f"?{MASK}" if query else "")
