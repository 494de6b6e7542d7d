"""Decoder processes: what hostile frames do to them reaches neither the worker nor the frames of others."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.data import get_testdata_files

from contracts.errors import NotAnalysable, PeerAway
from contracts.reasons import Reason
from contracts.settings import ScoringSettings
from worker.scoring.decode import Budget, _compressed, read
from worker.scoring.decoders_call import Decoders
from worker.scoring.frame import EncodedFrame, Pixels, decoded

FAULTY = (sys.executable, str(Path(__file__).with_name("faulty_decoder.py")))
BUDGET = Budget(1 << 30, 64 << 20)
SERIES = "1.2.1"
HEAD_OPTIONS: dict[str, str | int] = {"rows": 2, "columns": 3}
PARENT = """
import sys, time
from contracts.hooks import Silent
from contracts.settings import ScoringSettings
from worker.scoring.decoders_call import Decoders
from worker.scoring.frame import EncodedFrame
decode = Decoders(ScoringSettings(decode_timeout_s=float(sys.argv[2])), Silent(), (sys.executable, sys.argv[1]))("1.2")
options = {"rows": 1, "columns": 1}
print(decode(EncodedFrame("1.2", options, b"pid!"))[0, 0], flush=True)
if sys.argv[3] == "hang":
    decode(EncodedFrame("1.2", options, b"hang!"))
time.sleep(600)
"""


def frame_of(word: str) -> EncodedFrame:
    """A frame that asks the faulty decoder for something."""
    return EncodedFrame("1.2.840.10008.1.2.4.90", HEAD_OPTIONS, word.encode() + b"!")


@pytest.fixture
def faulty(told: Any) -> Iterator[Decoders]:
    """Decoders that do on demand what hostile bytes do; patience of one second."""
    decoders = Decoders(ScoringSettings(decode_timeout_s=1.0), told, FAULTY)
    yield decoders
    decoders.close()


def refusal(decode: Callable[[EncodedFrame], Pixels], word: str) -> tuple[Reason, str]:
    """The reason and the detail with which a frame is given up."""
    with pytest.raises(NotAnalysable) as refused:
        decode(frame_of(word))
    return refused.value.reason, refused.value.detail


def gone(pid: int, within_s: float = 10.0) -> bool:
    """Whether a process ends in time (a zombie has ended)."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.filterwarnings("ignore")
def test_every_compressed_file_of_pydicom_decodes_as_it_does_here(told: Any) -> None:
    """Confined, with no file or socket to open any more, the libraries give the same values, or fail the same way."""
    decoders = Decoders(ScoringSettings(), told)
    same, syntaxes = 0, set()
    try:
        for path in sorted({Path(file) for file in get_testdata_files("*.dcm")}):
            for frame in frames_in(path):
                confined, here = outcome(decoders(SERIES), frame), outcome(decoded, frame)
                assert confined[0] == here[0], path.name
                assert np.array_equal(confined[1], here[1]), path.name
                same += here[0] == "decoded"
                syntaxes.add(frame.transfer_syntax_uid)
    finally:
        decoders.close()
    assert same > 30
    assert len(syntaxes) >= 8
    assert not told.counts["decoder_replaced"]


def frames_in(path: Path) -> list[EncodedFrame]:
    """The first encoded frames of a file, as they would go to a decoder."""
    kept: list[EncodedFrame] = []

    def keep(frame: EncodedFrame) -> Pixels:
        kept.append(frame)
        return np.zeros(frame.shape, dtype=np.uint8)

    try:
        instance = read(path.read_bytes(), "", BUDGET)
        if instance.facts.has_pixels and instance.transfer_syntax.is_encapsulated:
            for _ in zip(range(2), _compressed(instance, BUDGET, keep), strict=False):
                pass
    except (NotAnalysable, ValueError):
        return []
    return kept


def outcome(decode: Callable[[EncodedFrame], Pixels], frame: EncodedFrame) -> tuple[str, Pixels]:
    """``decoded`` and the values, or the reason and nothing."""
    try:
        return "decoded", decode(frame)
    except NotAnalysable as problem:
        return f"{problem.reason}: {problem.detail}", np.zeros(0)


def test_a_crash_is_the_frames_fault_and_the_next_frame_is_decoded(faulty: Decoders, told: Any) -> None:
    """A wild pointer ends a decoder process twice (it could have been the machine), then the frame is given up."""
    decode = faulty(SERIES)
    assert refusal(decode, "crash") == (Reason.PIXELS_UNDECODABLE, "decoder crashed")
    assert decode(frame_of("pid")).shape == (2, 3)
    assert told.counts["decoder_replaced:crashed"] == 2


def test_a_hang_ends_with_the_patience_and_its_process_is_gone(faulty: Decoders, told: Any) -> None:
    """A loop in a library is killed after ``decode_timeout_s``; another process takes the next frame."""
    decode = faulty(SERIES)
    before = int(decode(frame_of("pid"))[0, 0])
    assert refusal(decode, "hang") == (Reason.PIXELS_UNDECODABLE, "decoder hung")
    assert gone(before)
    assert int(decode(frame_of("pid"))[0, 0]) != before
    assert told.counts["decoder_replaced:hung"] == 1


def test_frames_of_one_instance_share_their_time(told: Any) -> None:
    """Many frames, each within the patience, do not add up to hours."""
    decoders = Decoders(ScoringSettings(decode_timeout_s=1.0, decode_instance_s=1.0), told, FAULTY)
    try:
        decode = decoders(SERIES)
        assert refusal(decode, "hang") == (Reason.PIXELS_UNDECODABLE, "decoder hung")
        assert refusal(decode, "pid") == (Reason.PIXELS_UNDECODABLE, "decoding took too long")
        assert decoders(SERIES)(frame_of("pid")).shape == (2, 3), "another instance has its own time"
    finally:
        decoders.close()


def test_a_series_that_hung_is_given_less_patience_each_time_and_others_all_of_it(told: Any) -> None:
    """A poison study of hundreds of images costs about a second each, and nobody else anything."""
    decoders = Decoders(ScoringSettings(decode_timeout_s=4.0), told, FAULTY)
    try:
        patience_s = [decoders._patience_with(SERIES)]
        for _ in range(2):
            assert refusal(decoders(SERIES), "hang")[1] == "decoder hung"
            patience_s.append(decoders._patience_with(SERIES))
        assert patience_s == [4.0, 1.0, 1.0]
        assert decoders._patience_with("1.2.2") == 4.0
    finally:
        decoders.close()


def test_memory_beyond_the_limit_is_over_budget(faulty: Decoders, told: Any) -> None:
    """The address space ends; the worker's does not grow."""
    assert refusal(faulty(SERIES), "eat") == (Reason.PIXELS_OVER_BUDGET, "")
    assert told.counts["decoder_replaced:memory"] == 1


def test_a_decoder_that_lies_about_the_shape_is_not_believed(faulty: Decoders) -> None:
    """What comes back is checked against what was announced before a byte of it is taken."""
    assert refusal(faulty(SERIES), "lie") == (Reason.PIXELS_UNDECODABLE, "decoder crashed")


def test_a_decoder_can_open_no_socket_and_no_file(faulty: Decoders, told: Any) -> None:
    """Whatever takes it over finds no way out: each attempt fails (it would abort if one did not)."""
    assert not faulty(SERIES)(frame_of("escape")).any()
    assert not told.counts["decoder_replaced"]


def test_signals_for_the_group_do_not_end_decoding(faulty: Decoders) -> None:
    """SIGTERM and SIGINT are the worker's: it drains, and needs its decoders for that."""
    decode = faulty(SERIES)
    pid = int(decode(frame_of("pid"))[0, 0])
    assert os.getpgid(pid) != os.getpgid(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    assert int(decode(frame_of("pid"))[0, 0]) == pid


@pytest.mark.parametrize("doing", ["nothing", "hang"])
def test_decoders_die_with_a_worker_that_is_killed(doing: str) -> None:
    """Kill -9 of the worker leaves no process, neither an idle one nor one that hangs in a library."""
    command = [sys.executable, "-c", PARENT, FAULTY[1], "2.0", doing]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path.cwd()) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.kill()
        assert gone(pid), "a decoder outlives its worker"


def test_many_threads_each_have_a_decoder_and_poison_holds_up_only_its_own(faulty: Decoders) -> None:
    """While one frame hangs, others are decoded."""
    hung = threading.Thread(target=lambda: refusal(faulty(SERIES), "hang"))
    hung.start()
    try:
        for _ in range(5):
            assert faulty(SERIES)(frame_of("pid")).shape == (2, 3)
        assert hung.is_alive()
    finally:
        hung.join(10)


def test_closing_ends_every_decoder_and_blames_no_frame(told: Any) -> None:
    """A frame in a decoder when the service ends is nobody's fault: the next owner decodes it."""
    decoders = Decoders(ScoringSettings(decode_timeout_s=60.0), told, FAULTY)
    pid = int(decoders(SERIES)(frame_of("pid"))[0, 0])
    caught: list[Exception] = []

    def wait() -> None:
        try:
            decoders(SERIES)(frame_of("hang"))
        except (NotAnalysable, PeerAway) as problem:
            caught.append(problem)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.3)
    decoders.close()
    waiting.join(10)
    assert [type(problem) for problem in caught] == [PeerAway]
    assert gone(pid)
    with pytest.raises(PeerAway):
        decoders(SERIES)(frame_of("pid"))


def test_a_decoder_that_does_not_start_is_no_frames_fault(told: Any) -> None:
    """No process to be had is the machine's trouble: the frame is tried again later."""
    for command in (("/nowhere/python",), (sys.executable, "-c", "pass")):
        with pytest.raises(PeerAway):
            Decoders(ScoringSettings(), told, command)(SERIES)(frame_of("pid"))


CONFINED = """
import encodings.ascii, os, resource  # all that is imported: others may not read root's Python
from worker.scoring.decoder_in import confine
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
confine(1 << 28)
attempts = {"process": os.fork, "file": lambda: os.open("/dev/null", os.O_RDONLY), "socket": os.pipe}
for name, attempt in attempts.items():
    try:
        attempt()
    except OSError:
        print(name)
try:
    resource.setrlimit(resource.RLIMIT_NPROC, (9, 9))
except (OSError, ValueError):
    print("for good")
"""


def test_an_ordinary_user_starts_and_opens_nothing_once_confined() -> None:
    """No process, file or pipe, and no way back: what holds for any user but root."""
    done = subprocess.run([sys.executable, "-c", CONFINED], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.split("\n")[:-1] == ["process", "file", "socket", "for good"]
