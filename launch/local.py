"""``triage local``: the embedded stack on one machine, without Docker and without root, until Ctrl-C."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from launch.commands import ConfigFile
from launch.local_settings import Broker, given
from launch.local_stack import LocalStack
from launch.stack.part import StartFailed

STOPPED_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NOTHING_SURVIVES = "The embedded broker keeps everything in memory: nothing survives a restart."

BrokerChoice = Annotated[Broker, typer.Option(help="Tansu (embedded, memory only) or Apache Kafka (Java 17, Maven).")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.NAME=VALUE", help="A setting, e.g. flagging.quiet_s=3.")
]
Directory = Annotated[
    Path | None, typer.Option("--dir", file_okay=False, help="Keep state and logs there instead of a temporary folder.")
]

JSON_HELP = (
    "Print one line of JSON when all is ready. Its pids are those at the start: a part that was started again has "
    "another, which is told on standard error; the addresses stay."
)


def register(app: typer.Typer) -> None:
    """Adds ``triage local``."""
    app.command(name="local")(local)


def local(
    broker: BrokerChoice = Broker.TANSU,
    folder: Directory = None,
    assignments: Assignments = None,
    config: ConfigFile = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Start broker, Redis, Triton and the three services on free ports, watch them, stop them on Ctrl-C."""
    said = given(os.environ, assignments or (), config)
    try:
        with stop_signals() as signals, signals.watched(LocalStack(said, say, broker, folder)) as stack:
            tell(stack, as_json=as_json)
            stack.wait()
    except KeyboardInterrupt:
        say("everything is stopped.")
    except StartFailed as error:
        say(f"{error}\nEverything is stopped.")
        raise typer.Exit(1) from None
    else:
        say(stack.failure)
        raise typer.Exit(1)


def say(sentence: str) -> None:
    """Tells the person, beside the output."""
    print(f"triage local: {sentence}", file=sys.stderr, flush=True)


def tell(stack: LocalStack, *, as_json: bool) -> None:
    """The addresses: one line of JSON, or a table."""
    if as_json:
        print(json.dumps(stack.addresses.as_dict() | {"pids": stack.pids()}), flush=True)
        return
    console = Console()
    console.print(_table(stack))
    if stack.memory_only:
        console.print(NOTHING_SURVIVES)
    console.print(f"State and logs: {stack.folder}\nCtrl-C stops everything.", soft_wrap=True, highlight=False)


def _table(stack: LocalStack) -> Table:
    table = Table(title="Lesion Triage is ready (triage only, not for diagnosis)", title_justify="left")
    for heading in ("door", "address", "process"):
        table.add_column(heading, no_wrap=True)
    for door, address, pid in _rows(stack):
        table.add_row(door, address, str(pid))
    return table


def _rows(stack: LocalStack) -> Iterator[tuple[str, str, int]]:
    at, pids = stack.addresses, stack.pids()
    yield f"DICOM C-STORE ({at.ae_title})", at.dicom, pids["producer"]
    yield "STOW-RS", f"{at.stow}/studies", pids["producer"]
    yield "scoring and flagging", at.metrics["worker"], pids["worker"]
    yield "worklist", at.worklist, pids["worklist"]
    yield "Kafka", at.kafka, pids["broker"]
    yield "Redis", at.redis, pids["redis"]
    yield "Triton (gRPC)", at.triton, pids["triton"]


class StopSignals:
    """The first signal interrupts what is being done, so that everything is stopped in order; a second one kills.

    While everything is being stopped anyway the first one changes nothing: it must not cut the stopping short.
    """

    def __init__(self) -> None:
        self._told = False
        self._stack: LocalStack | None = None

    def watched(self, stack: LocalStack) -> LocalStack:
        """The stack, whose parts a second signal kills while they are being stopped."""
        self._stack = stack
        return stack

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """As a signal handler."""
        del number, frame
        first, self._told = not self._told, True
        if first and not (self._stack and self._stack.stopping):
            raise KeyboardInterrupt
        if not first and self._stack:
            self._stack.kill()


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """SIGTERM and SIGHUP end the body as Ctrl-C does. What the caller had ignored (nohup) stays ignored."""
    signals = StopSignals()
    heeded = [number for number in STOPPED_BY if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, signals) for number in heeded}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
