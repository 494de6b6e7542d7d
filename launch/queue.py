"""`triage queue`: the live reading list in a terminal. No patient's name unless asked for."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from contracts.errors import PeerAway
from contracts.worklist import QueueStatus
from launch import settings_in
from launch.commands import ConfigFile
from launch.queue_call import WorklistClient
from launch.queue_table import render
from worklist.answers import WorklistAnswer

_FRAME_ROWS = 8  # lines of a screen that are not studies: status, backlog, header, notice, what is left
_PIPE_WIDTH = 160  # characters of a line where there is no terminal
_PIPE_ROWS = 1000  # the API's largest page
_HINT = "; triage local and triage demo print the address of their worklist: give it with --url"
_UNKNOWN = WorklistAnswer(status=QueueStatus.DEGRADED, items=(), total=0, as_of=0.0)


def register(app: typer.Typer) -> None:
    """Adds ``triage queue``."""
    app.command(name="queue")(queue)


def queue(
    *,
    config: ConfigFile = None,
    url: Annotated[str, typer.Option(help="Of the worklist; else as the settings say.")] = "",
    token: Annotated[str, typer.Option(help="Bearer token; else worklist.reader_token of the settings.")] = "",
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One line of JSON for each change instead of a table.")
    ] = False,
    patient: Annotated[bool, typer.Option("--patient", help="Show names, patient IDs and birth dates.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 1.0,
) -> None:
    """Show the live reading list: the study to read first stands on top. Ctrl-C ends it."""
    console = _console()
    address, own_token = (url, "") if url else _from_settings(config)
    with WorklistClient(address, token or own_token, "" if url else _HINT) as client:

        def ask() -> WorklistAnswer:
            return client.read(_rows(console))

        try:
            if as_json:
                _print_json(ask, None if once else every, patient=patient)
            elif once:
                console.print(render(ask(), time.time(), patient=patient))
            else:
                _watch(ask, console, every, patient=patient)
        except KeyboardInterrupt:
            return


def _from_settings(config: Path | None) -> tuple[str, str]:
    """URL and token. The token of the settings goes to the worklist of the settings only."""
    worklist = settings_in.load(config).worklist
    host = f"[{worklist.host}]" if ":" in worklist.host else worklist.host
    return f"http://{host}:{worklist.port}", worklist.reader_token.get_secret_value()


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


def _rows(console: Console) -> int:
    return max(1, console.height - _FRAME_ROWS) if console.is_terminal else _PIPE_ROWS


def _watch(ask: Callable[[], WorklistAnswer], console: Console, every_s: float, *, patient: bool) -> None:
    """Draws the list over and over. While the worklist is away the last list stays, and says so."""
    answer = _UNKNOWN
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            trouble = ""
            try:
                answer = ask()
            except PeerAway as problem:
                trouble = f"{problem}; trying again. What stands below is old."
            live.update(render(answer, time.time(), patient=patient, trouble=trouble), refresh=True)
            time.sleep(every_s)


def _print_json(ask: Callable[[], WorklistAnswer], every_s: float | None, *, patient: bool) -> None:
    last = ""
    while True:
        answer = ask().model_dump(mode="json", exclude=None if patient else _NO_PATIENT)
        line = json.dumps({key: value for key, value in answer.items() if key not in _CLOCKS}, ensure_ascii=False)
        if line != last:
            print(json.dumps(answer, ensure_ascii=False))
            sys.stdout.flush()
        if every_s is None:
            return
        last = line
        time.sleep(every_s)


_NO_PATIENT = {"items": {"__all__": {"patient", "study_description"}}}
_CLOCKS = frozenset({"as_of", "age_s", "backlog"})  # they change with every look
