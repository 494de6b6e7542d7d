"""`triage queue`: the table's words, and the command against a real worklist."""

import io
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from rich.console import Console

from contracts.findings import Patient, StudyState, Urgency
from contracts.reasons import Reason
from contracts.worklist import NOTICE, Backlog, QueueStatus, WorklistItem
from launch.queue_table import duration, printable, render
from launch.stack.redis_server import RedisServer
from tests.test_worklist.conftest import Served, serving, settings_for
from tests.test_worklist.view_writer import ARRIVED, Writer, item
from worklist.answers import WorklistAnswer

NAMES = ("Specimen", "PID-4711", "19500101")


def _text(answer: WorklistAnswer, now: float = ARRIVED + 130, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(render(answer, now, **options))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _answer(*items: WorklistItem, status: QueueStatus = QueueStatus.OK, **fields: Any) -> WorklistAnswer:
    numbered = tuple(one.model_copy(update={"position": n}) for n, one in enumerate(items, start=1))
    fields.setdefault("total", len(items))
    return WorklistAnswer(status=status, items=numbered, as_of=ARRIVED, **fields)


def test_a_line_tells_what_a_reader_needs() -> None:
    """Position, urgency, state with provisional, finding and ml, images, waiting and due; and the notice."""
    bleed = item("1.2", state=StudyState.FLAGGED, urgency=Urgency.CRITICAL)
    lines = _text(_answer(bleed, item("1.3"))).splitlines()
    words = lines[3].split()
    assert words[:4] == ["1", "critical", "flagged,", "provisional"]
    assert "intraparenchymal 12.5 ml" in lines[3]
    assert "ACC-1.2" in lines[3]
    assert "2/3" in words
    assert words[-5:] == ["2", "min", "in", "7", "min"]
    assert "receiving" in lines[4]
    assert "Reading list ok · 2 studies" in lines[0]
    assert lines[-1].strip() == NOTICE


def test_no_name_is_shown_unless_asked_for() -> None:
    """Default: accession number, or the UID's tail; with --patient name, ID and birth date."""
    plain = _text(_answer(item("1.2"), item("1.2.840.99.123456789012").model_copy(update={"accession_number": ""})))
    assert not [name for name in NAMES if name in plain]
    assert "…123456789012" in plain
    assert all(name in _text(_answer(item("1.2")), patient=True) for name in NAMES)


def test_what_is_not_analysed_says_why_and_overdue_says_so() -> None:
    """Reason in words, notes too; a study past its due time is marked."""
    failed = item("1.2", state=StudyState.NOT_ANALYSED).model_copy(
        update={"reason": Reason.MODALITY_OUT_OF_SCOPE, "notes": (Reason.SAME_UID_OTHER_PIXELS,)}
    )
    text = _text(_answer(failed), now=ARRIVED + 600 + 7200)
    assert "not analysed (modality out of scope, same uid other pixels)" in " ".join(text.split())
    assert "overdue 2 h" in text


def test_an_empty_list_is_only_empty_when_it_is_ok() -> None:
    """While the queue is rebuilt or its store is away, nothing shown does not mean nothing there."""
    assert "Nothing to read." in _text(_answer())
    for status in (QueueStatus.REBUILDING, QueueStatus.DEGRADED):
        text = _text(_answer(status=status, detail="Why it is so."))
        assert "Nothing to read" not in text
        assert "not an empty list" in text
        assert "Why it is so." in text


def test_what_does_not_fit_is_counted() -> None:
    """A page is not the list."""
    assert "… and 40 more" in _text(_answer(item("1.1"), item("1.2"), total=42))


@pytest.mark.parametrize(
    ("backlog", "words"),
    [
        (None, "How far analysis is behind is not known."),
        (Backlog(), "Analysis is up to date"),
        (Backlog(complete=False), "Analysis is up to date (not every worker tells: there may be more)"),
        (Backlog(images=412, oldest_s=190.0), "Analysis is 3 min behind: 412 images wait"),
        (Backlog(images=1, oldest_s=2.5), "Analysis is 2 s behind: 1 image waits"),
        (
            Backlog(images=7, oldest_s=70.0, complete=False),
            "Analysis is 1 min behind: 7 images wait (not every worker tells: there may be more)",
        ),
    ],
)
def test_it_says_how_far_analysis_is_behind(backlog: Backlog | None, words: str) -> None:
    """In words, under the status; and what is not known is not told as nothing."""
    assert _text(_answer(backlog=backlog)).splitlines()[1].strip() == words


def test_a_name_cannot_steer_the_terminal() -> None:
    """Escape sequences in patient data are shown as replacement characters, markup as it stands."""
    evil = item("1.2").model_copy(update={"patient": Patient(name="\x1b[2J\x07[red]Bob[/red]\u202e")})
    text = _text(_answer(evil), patient=True)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "[red]Bob[/red]" in text
    assert printable("Müller^Jörg 山田") == "Müller^Jörg 山田"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 s"), (0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_durations_are_for_people(seconds: float, words: str) -> None:
    """One number, one unit, rounded down."""
    assert duration(seconds) == words


@pytest.fixture
def served(redis_server: RedisServer) -> Iterator[Served]:
    """A worklist with three studies, the flagged one first."""
    prefix = f"t{uuid.uuid4().hex}:"
    writer = Writer(redis_server.url, prefix)
    writer.ready()
    writer.put_all([item("1.1", rank=3), item("1.2", rank=4)])
    writer.put(item("1.3", rank=1, state=StudyState.FLAGGED, urgency=Urgency.CRITICAL))
    with serving(settings_for(redis_server.url, prefix)) as running:
        yield running


def _queue(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "launch.cli", "queue", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_once_prints_the_list_and_ends(served: Served) -> None:
    """The flagged study stands first, without a name; exit code 0."""
    done = _queue("--once", "--url", served.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.index("ACC-1.3") < done.stdout.index("ACC-1.1") < done.stdout.index("ACC-1.2")
    assert not [name for name in NAMES if name in done.stdout]


def test_json_is_one_line_without_names_unless_asked_for(served: Served) -> None:
    """Machine-readable, in reading order; --patient adds the patient."""
    plain = _queue("--once", "--json", "--url", served.url).stdout
    full = _queue("--once", "--json", "--patient", "--url", served.url).stdout
    assert [one["study_instance_uid"] for one in json.loads(plain)["items"]] == ["1.3", "1.1", "1.2"]
    assert plain.count("\n") == 1
    assert not [name for name in NAMES if name in plain]
    assert json.loads(full)["items"][0]["patient"]["patient_id"] == "PID-4711"


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("http://127.0.0.1:1", 1, "no answer from http://127.0.0.1:1"),
        ("nonsense", 2, "is not the URL of a worklist"),
        ("http://127.0.0.1:notaport", 2, "cannot be used"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(url: str, code: int, said: str) -> None:
    """No traceback: what was asked and why it failed, on standard error."""
    done = _queue("--once", "--url", url)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_without_a_url_a_worklist_that_is_away_says_where_an_embedded_one_is_found() -> None:
    """An embedded stack listens on a port of its own, which no setting knows: the sentence says who does."""
    with hold_port_of_nobody() as port:
        told = _queue("--once", TRIAGE_WORKLIST__PORT=str(port))
        given = _queue("--once", "--url", f"http://127.0.0.1:{port}")
    assert (told.returncode, told.stdout, told.stderr.count("\n")) == (1, "", 1)
    assert f"no answer from http://127.0.0.1:{port}" in told.stderr
    assert "triage local and triage demo print the address of their worklist: give it with --url" in told.stderr
    assert "--url" not in given.stderr


@contextmanager
def hold_port_of_nobody() -> Iterator[int]:
    """A port that is taken and not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_the_live_list_redraws_until_ctrl_c(served: Served) -> None:
    """On a terminal: the table appears, a change shows by itself, Ctrl-C ends it with exit code 0."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "launch.cli", "queue", "--url", served.url, "--every", "0.2"]
    environment = {**os.environ, "COLUMNS": "150", "LINES": "30", "TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    try:
        assert "ACC-1.3" in _until_shown(ours, "ACC-1.2")
        assert "critical" in _until_shown(ours, "critical")  # drawn again
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        os.close(ours)
        os.close(theirs)


def _until_shown(terminal: int, word: str) -> str:
    shown, end = "", time.monotonic() + 30
    while word not in shown and time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 65536).decode("utf-8", "replace")
    return shown
