"""``triage demo``: the embedded stack, studies over real associations, and the urgent one jumps while it still arrives.

1. The stack starts; the live events are opened, so that no flag can be missed.
2. Several software scanners send at once, one study and one association each, at one common pace.
3. Every study is awaited until it has closed with its last word; then each one's own list of images is read.
4. The final worklist, one JSON object if asked for, and an exit code that is 0 only if nothing was lost.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import typer

from contracts.errors import PeerAway, TriageError
from contracts.settings import Settings
from contracts.worklist import NOTICE
from launch.commands import ConfigFile
from launch.demo_board import Board, faults, result
from launch.demo_in import WorklistReader
from launch.demo_scanners import Scanners
from launch.demo_studies import DemoStudy, default_studies, studies_in
from launch.demo_view import View, console_on, view_for, worklist_table
from launch.local import Assignments, BrokerChoice, stop_signals
from launch.local_settings import Broker, given
from launch.local_stack import LocalStack
from launch.scanner import host_and_port
from launch.scanner_out import Scanner
from launch.stack.part import StartFailed
from launch.wording import counted

LOOK_S = 0.4  # how often the list is read while it moves
OPEN_S = 15.0  # for the live events to open on a busy machine
MARGIN_S = 30.0  # beyond the time in which every study must be told

Studies = Annotated[int, typer.Option(min=1, help="How many studies; heads beyond the real ones are phantoms.")]
Rate = Annotated[float, typer.Option(min=0.1, help="Images a second, all scanners together.")]
Folder = Annotated[Path | None, typer.Option("--from", exists=True, file_okay=False, help="Send your own DICOM.")]


def register(app: typer.Typer) -> None:
    """Adds ``triage demo``."""
    app.command(name="demo")(demo)


def demo(  # noqa: PLR0913 — a command's options
    studies: Studies = 6,
    rate: Rate = 6.0,
    folder: Folder = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed sends the same studies.")] = 1,
    broker: BrokerChoice = Broker.TANSU,
    assignments: Assignments = None,
    config: ConfigFile = None,
    *,
    leave: Annotated[bool, typer.Option("--exit", help="Stop at the end instead of staying up.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else.")] = False,
) -> None:
    """Start the embedded stack, send head CTs, and watch the bleeding one go to the top of the worklist."""
    said = given(os.environ, assignments or (), config)
    sent = _own(folder) if folder else default_studies(seed, studies)
    say(NOTICE)
    wrong = ["it was interrupted"]
    try:
        with stop_signals() as signals, signals.watched(LocalStack(said, say, broker)) as stack:
            board = watch(stack, sent, rate)
            wrong = faults(board)
            tell(board, wrong, stack, as_json=as_json)
            if not leave:
                stay(stack)
    except KeyboardInterrupt:
        say("everything is stopped.")
        raise typer.Exit(int(bool(wrong))) from None
    except StartFailed as error:
        say(f"{error}\nEverything is stopped.")
        raise typer.Exit(1) from None
    raise typer.Exit(int(bool(wrong)))


def say(sentence: str) -> None:
    """Tells the person, beside the output."""
    print(f"triage demo: {sentence}", file=sys.stderr, flush=True)


def _own(folder: Path) -> list[DemoStudy]:
    found, left_out = studies_in(folder)
    if left_out:
        say(_left_out(left_out, folder))
    return found


def _left_out(files: int, folder: Path) -> str:
    if files == 1:
        return f"1 file of {folder} is no DICOM Part 10 file and is left out."
    return f"{files} files of {folder} are no DICOM Part 10 files and are left out."


def watch(stack: LocalStack, studies: Iterable[DemoStudy], rate: float) -> Board:
    """Sends and shows until every study has its last word, or the time in which it must have one is over."""
    board, lock = Board(), threading.Lock()
    scanner = scanner_of(stack, rate)
    console = console_on(sys.stderr)

    def told(_event: str, item: object) -> None:
        if isinstance(item, dict):
            with lock:
                board.told(item, time.monotonic())

    token = stack.settings.worklist.reader_token.get_secret_value()
    with WorklistReader(stack.addresses.worklist, token) as reader:
        reader.follow(told, OPEN_S)
        with Scanners(studies, scanner, board, lock) as scanners, view_for(console) as view:
            _until_ended(stack, scanners, reader, board, lock, view)
        _look_into(reader, board)
    return board


def scanner_of(stack: LocalStack, rate: float) -> Scanner:
    """The common part of every scanner of the demo."""
    host, port = host_and_port(stack.addresses.dicom)
    allowed = stack.settings.producer.calling_aes
    scanner = Scanner(host, port, called_ae=stack.addresses.ae_title, rate=rate)
    return replace(scanner, calling_ae=allowed[0]) if allowed else scanner


def _until_ended(
    stack: LocalStack, scanners: Scanners, reader: WorklistReader, board: Board, lock: threading.Lock, view: View
) -> None:
    limit_s = told_within_s(stack.settings)
    for _ in _looks(stack):
        status, items = _list(reader)
        now_s = time.monotonic()
        with lock:
            if status:
                board.listed(status, items, now_s)
            view.show(board, now_s)
            ended = scanners.done and board.all_ended()
            waiting = [study.label for study in board.studies.values() if not study.ended]
        if ended:
            return
        if scanners.done and now_s - scanners.ended_s > limit_s:
            say(f"{limit_s:.0f} s after the last image these studies have no last word: {', '.join(waiting)}.")
            return


def told_within_s(settings: Settings) -> float:
    """By then the service has promised a word on every study."""
    return settings.flagging.quiet_s + settings.flagging.deadline_s + MARGIN_S


def _looks(stack: LocalStack) -> Iterator[int]:
    """Ends, with an error, when the stack does."""
    for look in count():
        yield look
        if stack.wait(LOOK_S):
            raise TriageError(stack.failure or "the stack has ended.")


def _list(reader: WorklistReader) -> tuple[str, list[Mapping[str, Any]]]:
    """A worklist that does not answer now is asked again at the next look; the wait as a whole is bounded."""
    try:
        return reader.worklist()
    except PeerAway:
        return "", []


def _look_into(reader: WorklistReader, board: Board) -> None:
    for uid in board.order:
        if uid in board.studies:
            board.looked_into(uid, reader.study(uid)["images"])


def tell(board: Board, wrong: list[str], stack: LocalStack, *, as_json: bool) -> None:
    """The end: the worklist for people, the object for programs, and what went wrong, in either case."""
    console = console_on(sys.stderr if as_json else sys.stdout)
    console.print(worklist_table(board))
    console.print(f"{NOTICE}\n{_sentence(board)}", highlight=False, soft_wrap=True)
    if stack.memory_only:
        console.print("The embedded broker keeps everything in memory: nothing survives a restart.", soft_wrap=True)
    for fault in wrong:
        say(f"FAULT {fault}")
    if as_json:
        print(json.dumps(result(board)), flush=True)


def _sentence(board: Board) -> str:
    sent = result(board)["sent"]
    settled = sum(len(study.settled & study.sops) for study in board.studies.values())
    images, studies = counted(sent["images"], "image"), counted(sent["studies"], "study", "studies")
    return f"{settled} of {images} settled; {studies} sent in {sent['seconds']:.1f} s."


def stay(stack: LocalStack) -> None:
    """Keeps the stack up until Ctrl-C, addresses told. Raises TriageError when the stack ends by itself."""
    for name, address in stack.addresses.as_dict().items():
        parts = address if isinstance(address, dict) else {"": address}
        for part, where in parts.items():
            door = f"{name} of {part}" if part else name
            say(f"{door}: {where}")
    say(f"open {stack.addresses.worklist} to read the worklist; Ctrl-C stops everything.")
    stack.wait()
    raise TriageError(stack.failure or "the stack has ended.")
