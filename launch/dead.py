"""``triage dead``: scans that could not be scored through a fault of their own. List, replay or discard them."""

import functools
import getpass
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from contracts.errors import TriageError
from contracts.reasons import Reason
from launch.letters_call import Letter, Letters, Replayed
from launch.settings_in import load
from producer.leftovers_out import renewed

app = typer.Typer(
    help="List, replay or discard scans that could not be scored.", no_args_is_help=True, add_completion=False
)

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", envvar="TRIAGE_CONFIG", help="TOML file with settings; the environment wins over it."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else.")]
Places = Annotated[list[str] | None, typer.Argument(metavar="PLACE…", help="topic:partition:offset, from the list.")]
Every = Annotated[bool, typer.Option("--all", help="Every open dead letter.")]
BecauseOf = Annotated[str, typer.Option("--because", help="With --all: only letters with this reason.")]


@app.command(name="list")
def list_letters(*, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Open dead letters: place, reason, study, time. No patient data, no payload."""
    with _letters(config) as letters:
        found = letters.open()
    if as_json:
        print(json.dumps({"letters": [letter.told() for letter in found.letters], "more": found.more}))
        return
    Console().print(_table(found.letters) if found.letters else "No open dead letters.")
    if found.more:
        print(f"{found.more} more are listed once some of these have been replayed or discarded.")


@app.command()
def replay(
    places: Places = None,
    *,
    every: Every = False,
    because: BecauseOf = "",
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Put scans back into their lanes, to be scored again; written into the audit trail."""
    with _letters(config) as letters:
        chosen = _chosen(letters, places, every=every, because=because)
        _each(chosen, lambda letter: _told(letters.replay(letter)), "replayed", as_json=as_json)


@app.command()
def discard(
    places: Places = None,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why, in words; goes into the audit trail.")],
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Give up on scans: their images stay not analysed (discarded), which a reader sees."""
    if not reason.strip():
        raise TriageError("A dead letter is discarded for a reason: give it with --reason.")
    with _letters(config) as letters:
        chosen = _chosen(letters, places, every=False, because="")

        def give_up(letter: Letter) -> dict[str, Any]:
            letters.discard(letter, reason.strip())
            return {}

        _each(chosen, give_up, "discarded", as_json=as_json)


@contextmanager
def _letters(config: Path | None) -> Iterator[Letters]:
    settings = load(config)
    letters = Letters(settings.kafka, by=_who(), renew=functools.partial(renewed, settings.payload.url))
    try:
        yield letters
    finally:
        letters.close()


def _who() -> str:
    """The account that runs the command: the audit trail names one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _chosen(letters: Letters, places: list[str] | None, *, every: bool, because: str) -> list[Letter]:
    if because and because not in set(Reason):
        raise TriageError(f"{because!r} is no reason: one of {', '.join(Reason)}.")
    if bool(places) == every:
        raise TriageError("Name the places of dead letters, or say --all.")
    if places:
        return letters.named(places)
    return [letter for letter in letters.open().letters if not because or letter.reason == because]


def _each(letters: list[Letter], do: Callable[[Letter], dict[str, Any]], done: str, *, as_json: bool) -> None:
    """One after the other: what is done stays done when a later one fails."""
    told: list[dict[str, Any]] = []
    for letter in letters:
        told.append({"place": letter.place, **do(letter)})
        if not as_json:
            print(f"{done}: {letter.place} ({letter.reason})")
    if as_json:
        print(json.dumps({done: told}))


def _table(letters: list[Letter]) -> Table:
    table = Table("place", "reason", "study", "failed at (UTC)", box=None, header_style="bold")
    for letter in letters:
        at = datetime.fromtimestamp(letter.at, UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
        table.add_row(letter.place, letter.reason, letter.study_instance_uid, at)
    return table


def _told(replayed: Replayed) -> dict[str, Any]:
    """What became of it; on standard error where a person has to look after it."""
    told: dict[str, Any] = {"new_place": _text(replayed.place)}
    if replayed.renewed is not None:
        told["payload_renewed"] = replayed.renewed
    if replayed.renewed is False:
        print(
            f"{told['new_place']}: its payload could not be made young again from here. It is scored if it is still in "
            "the store when its turn comes; if not, it is a dead letter again (payload_missing).",
            file=sys.stderr,
        )
    return told


def _text(place: Any) -> str:
    return f"{place.topic}:{place.partition}:{place.offset}"
