"""Every command of ``triage`` by name and help. A command's module is imported when it is called, not before.

An error of ours is one sentence on standard error: exit code 2 for a wrong setting, 1 for everything else.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from contracts.errors import SettingsError, TriageError

_OWN = ("contracts", "producer", "worker", "worklist", "launch", "training")


@dataclass(frozen=True, slots=True)
class _Lazy:
    """A command that lives in another module.

    ``attribute`` is a Typer app, or a function that takes one and adds the command to it. ``extra`` is what to install
    where the module's packages are missing; empty where nothing to install would bring it.
    """

    module: str
    attribute: str
    help: str
    extra: str


_COMMANDS: dict[str, _Lazy] = {
    "producer": _Lazy("launch.services", "producer", "Receive images: C-STORE, STOW-RS, folder.", "producer"),
    "worker": _Lazy("launch.services", "worker", "Score images and flag studies.", "worker"),
    "worklist": _Lazy("launch.services", "worklist", "Serve the reading list.", "worklist"),
    "config": _Lazy("launch.services", "config", "Print the effective settings, secrets masked.", ""),
    "local": _Lazy("launch.local", "register", "Start the whole embedded stack and wait.", "local"),
    "demo": _Lazy("launch.demo", "register", "Start the stack, send studies, watch the urgent one jump.", "local"),
    "send": _Lazy("launch.scanner", "register", "Send DICOM files as a scanner would.", "producer"),
    "queue": _Lazy("launch.queue", "register", "Show the live reading list.", "worklist"),
    "dead": _Lazy("launch.dead", "app", "List, replay or discard scans that could not be scored.", "worker"),
    "models": _Lazy(
        "launch.models", "app", "The served models: list, verify, import, promote, compress, plan.", "worker"
    ),
    "data": _Lazy("training.data.cli", "app", "Check a data set before training (in a checkout).", "train"),
    "phantom": _Lazy("training.phantom.cli", "app", "Make synthetic head CT studies with known truth.", "train"),
    "train": _Lazy("training.cli", "app", "Train the default model (in a checkout, not in the wheel).", "train"),
    "evaluate": _Lazy("training.evaluation.cli", "app", "Tell what a model is worth, with a report.", "train"),
    "explain": _Lazy("training.explaining.cli", "app", "Show where the network looked on one slice.", "train"),
}


class _Root(TyperGroup):
    """Knows every command by name and help; loads one when it is called; turns our errors into sentences."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """Typer imports more while it reads the command line."""
        with _interrupt_told():
            return super().make_context(*arguments, **more)

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of the data."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What help and completion need: nothing is imported for it."""
        del ctx
        lazy = _COMMANDS.get(cmd_name)
        return lazy and TyperCommand(cmd_name, help=lazy.help)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Replaces the placeholder of the called command by the command."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and _load(_COMMANDS[args[0]], args[0]), rest

    def invoke(self, ctx: Any) -> Any:
        """Our errors end as one sentence."""
        try:
            with _interrupt_told():
                return self._invoke(ctx)
        except TriageError as problem:
            print(f"triage: {_one_line(problem)}", file=sys.stderr)
            raise typer.Exit(2 if isinstance(problem, SettingsError) else 1) from None

    def _invoke(self, ctx: Any) -> Any:
        """A package that a command imports only when it works is told as one that it imports at once."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as problem:
            called = ctx.invoked_subcommand
            if called not in _COMMANDS:
                raise
            raise TriageError(_missing(called, _COMMANDS[called].extra, problem.name or "")) from None


@contextmanager
def _interrupt_told() -> Iterator[None]:
    """Typer makes 130 of an interrupt, without a word."""
    try:
        yield
    except KeyboardInterrupt:
        print("triage: interrupted", file=sys.stderr)
        raise


def _one_line(problem: TriageError) -> str:
    return " ".join(str(problem).split()) or type(problem).__name__


def _load(lazy: _Lazy, name: str) -> Any:
    with sentence_for_missing(name, lazy.extra):
        found = getattr(importlib.import_module(lazy.module), lazy.attribute)
    app = found if isinstance(found, typer.Typer) else _registered(found)
    command = typer.main.get_command(app)
    command.name = name
    return command


def _registered(register: Any) -> typer.Typer:
    app = typer.Typer(add_completion=False)
    register(app)
    return app


class sentence_for_missing:  # noqa: N801 — read as a statement: with sentence_for_missing(…):
    """Tells what to install where an import of ``command`` fails; other errors pass."""

    def __init__(self, command: str, extra: str) -> None:
        self._command = command
        self._extra = extra

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _kind: object, problem: BaseException | None, _trace: object) -> None:
        """Raises TriageError in place of ModuleNotFoundError."""
        if isinstance(problem, ModuleNotFoundError):
            raise TriageError(_missing(self._command, self._extra, problem.name or "")) from None


def _missing(command: str, extra: str, module: str) -> str:
    if module.split(".", maxsplit=1)[0] in _OWN:
        where = "only in a checkout of the project" if module.startswith("training") else "not in this installation"
        return f"triage {command} is {where} (there is no module {module})."
    return f"triage {command} needs the package {module}: pip install 'lesion-triage[{extra}]'."


def _version(asked: bool) -> None:  # noqa: FBT001 — Typer's signature of an option's callback
    if asked:
        print(f"triage {installed_version('lesion-triage')}")
        raise typer.Exit


app = typer.Typer(cls=_Root, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", envvar="TRIAGE_CONFIG", help="TOML file with settings; the environment wins over it."),
]


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The urgent scan is read first. Triage only, not for diagnosis; the default model is trained on synthetic data."""
