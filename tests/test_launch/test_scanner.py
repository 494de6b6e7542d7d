"""The software scanner against real DICOM nodes: DCMTK's storescp, and pynetdicom where a fault is wanted."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.filebase import DicomBytesIO
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, evt

from contracts.errors import SettingsError
from launch import scanner_out
from launch.scanner import all_well, check_ae_title, found_in, host_and_port, sentence_of, summary_of
from launch.scanner_in import Image, IsDirectoryRecord, NotSendable, image_in, image_of
from launch.scanner_out import MAX_CONTEXTS, Outcome, Pace, Scanner, batches, outcome_of, send_images
from tests.conftest import missing
from tests.servers.ports import free_port
from tests.servers.processes import becomes_true

FILES = (
    "CT_small.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "MR_small.dcm",
    "JPEG2000.dcm",
    "image_dfl.dcm",
    "ExplVR_BigEnd.dcm",
)
DICOMDIRS = Path(str(get_testdata_file("DICOMDIR", download=False))).parent
CT = Path(str(get_testdata_file("CT_small.dcm", download=False)))


def real_files() -> list[Path]:
    """Real images in many transfer syntaxes."""
    return [Path(str(get_testdata_file(name, download=False))) for name in FILES]


class Node:
    """A pynetdicom storage SCP whose answers a test decides."""

    def __init__(self, answer: Callable[[Any], int], abort_first: int = 0) -> None:
        self.took: list[tuple[str, int]] = []  # SOP Instance UID, DIMSE priority
        self.sets: dict[str, bytes] = {}
        self.associations = 0
        self._answer = answer
        self._aborts_left = abort_first
        ae = AE("TRIAGE")
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, AllTransferSyntaxes)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_ACCEPTED, self._accepted)]
        self.server: Any = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.scanner = Scanner("127.0.0.1", self.server.socket.getsockname()[1], retry_s=20.0)

    def _accepted(self, _event: Any) -> None:
        self.associations += 1

    def _store(self, event: Any) -> int:
        if self._aborts_left:
            self._aborts_left -= 1
            event.assoc.abort()
        uid = str(event.request.AffectedSOPInstanceUID)
        self.took.append((uid, event.request.Priority))
        self.sets[uid] = event.request.DataSet.getvalue()
        return self._answer(event)


@pytest.fixture
def node_of() -> Iterator[Callable[..., Node]]:
    """Makes nodes; shuts them down."""
    made: list[Node] = []

    def make(answer: Callable[[Any], int] = lambda _: 0, abort_first: int = 0) -> Node:
        made.append(Node(answer, abort_first))
        return made[-1]

    yield make
    for node in made:
        node.server.shutdown()


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[tuple[Scanner, Path]]:
    """DCMTK's receiver, which keeps every data set bit for bit; where it listens and its folder."""
    if shutil.which("storescp") is None:
        missing("storescp is not installed (apt: dcmtk)")
    folder, port = tmp_path / "received", free_port()
    folder.mkdir()
    command = ["storescp", str(port), "-od", str(folder), "+xa", "--bit-preserving", "--fork"]
    process = subprocess.Popen(command, env={**os.environ, "TCP_NODELAY": "1"}, start_new_session=True)
    scanner = Scanner("127.0.0.1", port, retry_s=20.0)
    assert becomes_true(lambda: _echoes(scanner))
    yield scanner, folder
    os.killpg(process.pid, 15)
    process.wait()


def _echoes(scanner: Scanner) -> bool:
    ae = AE()
    ae.add_requested_context("1.2.840.10008.1.1")
    association = ae.associate(scanner.host, scanner.port)
    echoes = bool(association.is_established)
    if echoes:
        association.release()
    return echoes


def test_dcmtk_receives_each_file_in_its_own_transfer_syntax_bit_for_bit(storescp: tuple[Scanner, Path]) -> None:
    """Compressed, deflated, big endian: what arrives is what was in the file, not what pydicom would write.

    A deflated stream of odd length gets the one NULL byte that PS3.5 A.5 asks for: DCMTK aborts without it.
    """
    scanner, folder = storescp
    images = [image_in(path) for path in real_files()]
    answers = send_images(images, scanner)
    assert [answer.outcome for answer in answers] == [Outcome.STORED] * len(images)
    received = {}
    for path in folder.iterdir():
        image = image_in(path)
        received[image.sop_instance_uid] = (image.transfer_syntax_uid, image.load())
    assert received == {image.sop_instance_uid: (image.transfer_syntax_uid, image.payload()) for image in images}
    padded = [image.transfer_syntax_uid for image in images if image.payload() != image.load()]
    assert padded == ["1.2.840.10008.1.2.1.99"]


def test_the_command_sends_folders_tells_each_file_and_leaves_dicomdirs_out(
    storescp: tuple[Scanner, Path], tmp_path: Path
) -> None:
    """A folder with a DICOMDIR and a text file: every image is stored, nothing else is a fault, exit code 0."""
    scanner, folder = storescp
    source = tmp_path / "cd"
    shutil.copytree(DICOMDIRS / "77654033", source / "77654033")
    shutil.copy(DICOMDIRS / "DICOMDIR", source)
    (source / "README").write_text("not an image")
    images = [path for path in (source / "77654033").rglob("*") if path.is_file()]
    to = f"{scanner.host}:{scanner.port}"
    command = [sys.executable, "-m", "launch.cli", "send", str(source), "--to", to, "--associations", "2", "--json"]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert told.returncode == 0, told.stderr
    summary = json.loads(told.stdout)
    assert (summary["images"], summary["stored"]) == (len(images), len(images))
    assert {file["path"] for file in summary["files"]} == {str(path) for path in images}
    assert summary["left_out"] == {str(source / "README"): "not a DICOM Part 10 file"}
    assert len(list(folder.iterdir())) == len(images)
    assert all(str(path) in told.stderr for path in images)


def test_a_busy_node_gets_the_image_again_until_it_takes_it(node_of: Callable[..., Node]) -> None:
    """0xA700 twice, then Success: three attempts, one answer, and it is stored."""
    answers = iter((0xA700, 0xA701, 0x0000))
    node = node_of(lambda _: next(answers))
    (sent,) = send_images([image_in(CT)], node.scanner)
    assert (sent.outcome, sent.status, sent.attempts) == (Outcome.STORED, 0, 3)
    assert len(node.took) == 3


def test_a_node_that_stays_busy_is_given_up_after_the_time_to_insist(node_of: Callable[..., Node]) -> None:
    """The last word is 0xA700, and the image counts as refused."""
    node = node_of(lambda _: 0xA700)
    (sent,) = send_images([image_in(CT)], replace(node.scanner, retry_s=0.6))
    assert (sent.outcome, sent.status) == (Outcome.REFUSED, 0xA700)
    assert sent.attempts > 1


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0110])
def test_any_other_refusal_is_the_last_word_and_the_next_image_goes_on(
    node_of: Callable[..., Node], status: int
) -> None:
    """No second attempt; the association serves the images behind it; the command would exit with 1."""
    uid = image_in(CT).sop_instance_uid
    node = node_of(lambda event: status if str(event.request.AffectedSOPInstanceUID) == uid else 0)
    answers = send_images([image_in(path) for path in real_files()[:3]], node.scanner)
    assert [answer.outcome for answer in answers] == [Outcome.REFUSED, Outcome.STORED, Outcome.STORED]
    assert answers[0].attempts == 1
    assert node.associations == 1
    assert not all_well(summary_of(answers, {}))


def test_a_lost_association_is_opened_again_and_nothing_is_lost(node_of: Callable[..., Node]) -> None:
    """The peer aborts in the middle of the first image; every image is stored in the end."""
    node = node_of(abort_first=1)
    answers = send_images([image_in(path) for path in real_files()[:3]], node.scanner)
    assert [answer.outcome for answer in answers] == [Outcome.STORED] * 3
    assert node.associations == 2
    assert answers[0].attempts == 2


class NeverPauses:
    """In the place of the event at which the library's thread of an association is to wait."""

    def wait(self) -> None:
        """Goes on after a moment in which it looks as if it waited."""
        time.sleep(0.005)

    def set(self) -> None:
        """It never waits."""

    def clear(self) -> None:
        """It never waits."""


def test_an_answer_that_the_librarys_thread_takes_is_not_lost(
    node_of: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine its pause is seen too early. Here it never pauses, and every answer reaches the sender."""
    associate = scanner_out._Association._associate

    def associated(self: Any) -> Any:
        association = associate(self)
        association._reactor_checkpoint = NeverPauses()
        return association

    monkeypatch.setattr(scanner_out._Association, "_associate", associated)
    answers = send_images([image_in(CT)] * 20, replace(node_of().scanner, answer_s=20.0, retry_s=0.0))
    assert [(answer.outcome, answer.attempts) for answer in answers] == [(Outcome.STORED, 1)] * 20


def test_a_node_that_starts_late_gets_everything() -> None:
    """Nobody listens at first; the scanner insists until somebody does."""
    scanner = Scanner("127.0.0.1", free_port(), retry_s=20.0)
    answers: list[Any] = []
    sending = threading.Thread(target=lambda: answers.extend(send_images([image_in(CT)], scanner)))
    sending.start()
    time.sleep(0.5)
    ae = AE("TRIAGE")
    ae.supported_contexts = AllStoragePresentationContexts
    server: Any = ae.start_server((scanner.host, scanner.port), block=False, evt_handlers=[(evt.EVT_C_STORE, _success)])
    sending.join(30)
    server.shutdown()
    assert [answer.outcome for answer in answers] == [Outcome.STORED]
    assert answers[0].attempts > 1


def _success(_event: Any) -> int:
    return 0


def test_what_the_peer_does_not_take_fails_and_the_rest_is_sent() -> None:
    """A node without JPEG 2000 gets the uncompressed image; nothing is re-encoded behind the sender's back."""
    ae = AE("TRIAGE")
    ae.supported_contexts = AllStoragePresentationContexts  # uncompressed transfer syntaxes only
    server: Any = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, _success)])
    scanner = Scanner("127.0.0.1", server.socket.getsockname()[1], retry_s=20.0)
    answers = send_images([image_in(path) for path in real_files()[:2]], scanner)
    server.shutdown()
    assert [answer.outcome for answer in answers] == [Outcome.STORED, Outcome.FAILED]
    assert (answers[1].attempts, answers[1].status) == (1, None)
    assert "transfer syntax" in answers[1].detail


def test_stat_is_dimse_priority_high(node_of: Callable[..., Node]) -> None:
    """PS3.7 9.3.1.1: 1 is high, 0 is medium."""
    node = node_of()
    for stat in (False, True):
        send_images([image_in(CT)], replace(node.scanner, stat=stat))
    assert [priority for _, priority in node.took] == [0, 1]


def test_associations_share_the_images_and_each_goes_once(node_of: Callable[..., Node]) -> None:
    """Three associations at once, and no image is sent twice."""
    node = node_of()
    images = [image_in(path) for path in sorted((DICOMDIRS / "98892003").rglob("*")) if path.is_file()]
    answers = send_images(images, replace(node.scanner, associations=3))
    assert node.associations == 3
    assert sorted(uid for uid, _ in node.took) == sorted(image.sop_instance_uid for image in images)
    assert len(answers) == len(images)


def test_a_data_set_is_sent_as_its_file_would_be(node_of: Callable[..., Node]) -> None:
    """The demo's way: a pydicom data set arrives in its own transfer syntax, readable as what it was."""
    node = node_of()
    dataset = dcmread(CT)
    (sent,) = send_images([image_of(dataset)], node.scanner)
    assert sent.stored
    buffer = DicomBytesIO(node.sets[str(dataset.SOPInstanceUID)])
    arrived = dcmread(buffer, force=True)
    assert arrived.PixelData == dataset.PixelData


def test_stopped_it_ends_after_the_image_in_hand(node_of: Callable[..., Node]) -> None:
    """What was not tried has no answer."""
    node, stop = node_of(), threading.Event()
    images = [image_in(path) for path in real_files()]
    answers = send_images(images, node.scanner, lambda _: stop.set(), stop)
    assert len(answers) == 1


def test_a_pace_lets_so_many_through_and_makes_up_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 2 images a second the waits are 0, ½ s, ½ s; after a long pause it is 0 and ½ s again, not a burst."""
    now, waited = [100.0], []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0.0)
            now[0] += timeout or 0.0
            return False

    monkeypatch.setattr("launch.scanner_out.time.monotonic", lambda: now[0])
    pace = Pace(2.0, Stop())
    for _ in range(3):
        assert pace.wait()
    now[0] += 60
    for _ in range(2):
        assert pace.wait()
    assert waited == pytest.approx([0.0, 0.5, 0.5, 0.0, 0.5])


def _image(context: int) -> Image:
    return Image("", f"1.2.{context}", "1.2.3", "1.2.840.10008.1.2", lambda: b"")


@given(st.lists(st.integers(0, 400), max_size=600))
def test_no_batch_needs_more_contexts_than_an_association_has(contexts: list[int]) -> None:
    """Images stay in order, none is lost, and 128 presentation contexts always suffice."""
    images = [_image(context) for context in contexts]
    cut = list(batches(images))
    assert [image for batch in cut for image in batch] == images
    assert all(len({image.context for image in batch}) <= MAX_CONTEXTS for batch in cut)
    assert all(cut)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0x0000, Outcome.STORED),
        (0xB000, Outcome.WARNING),
        (0xB006, Outcome.WARNING),
        (0xB007, Outcome.WARNING),
        (0xA700, Outcome.REFUSED),
        (0xA900, Outcome.REFUSED),
        (0xC000, Outcome.REFUSED),
        (0x0122, Outcome.REFUSED),
    ],
)
def test_statuses_mean_what_the_standard_says(status: int, outcome: Outcome) -> None:
    """PS3.4 table B.2-1: a warning is stored, everything else but 0 is not."""
    assert outcome_of(status) is outcome


def test_what_is_no_part_10_file_says_so_and_not_what_is_in_it(tmp_path: Path) -> None:
    """Text, nothing, a cut header, a DICOMDIR, a folder."""
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(CT.read_bytes()[:200])
    text = tmp_path / "text"
    text.write_text("Doe^John")
    for path in (cut, text, tmp_path / "absent", tmp_path):
        with pytest.raises(NotSendable) as refused:
            image_in(path)
        assert "Doe" not in str(refused.value)
    with pytest.raises(IsDirectoryRecord):
        image_in(DICOMDIRS / "DICOMDIR")


@pytest.mark.parametrize("to", ["host", "host:", ":104", "host:0", "host:70000", "host:x"])
def test_a_wrong_address_is_a_sentence(to: str) -> None:
    """--to takes HOST:PORT."""
    with pytest.raises(SettingsError, match="HOST:PORT"):
        host_and_port(to)


def test_addresses_and_ae_titles_are_read() -> None:
    """IPv6 in brackets; titles of 1 to 16 characters without a backslash."""
    assert host_and_port("[::1]:104") == ("::1", 104)
    assert host_and_port("pacs:11112") == ("pacs", 11112)
    check_ae_title("A" * 16)
    for wrong in ("", "   ", "A" * 17, "A\\B", "Ä"):
        with pytest.raises(SettingsError):
            check_ae_title(wrong)


def test_a_named_file_that_cannot_be_sent_makes_the_command_fail(tmp_path: Path) -> None:
    """A bystander in a folder is left out; a file that was asked for is a fault, with its reason."""
    summary = summary_of([], {str(tmp_path / "x"): "not a DICOM Part 10 file"})
    assert not all_well(summary)
    assert sentence_of(summary).endswith("x: not a DICOM Part 10 file")


def test_what_a_folder_holds_besides_is_counted_and_what_cannot_be_read_there_is_a_fault(tmp_path: Path) -> None:
    """Left out is never silent; and a file that nobody could open may have been an image."""
    (tmp_path / "notes").write_text("not an image")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    found = found_in([tmp_path])
    assert found.left_out == {str(tmp_path / "notes"): "not a DICOM Part 10 file"}
    assert found.not_sendable == {str(tmp_path / "gone"): "No such file or directory"}
    summary = summary_of([], found.not_sendable, found.left_out)
    assert not all_well(summary)
    assert sentence_of(summary).endswith("1 file left out that is no DICOM Part 10 file")
    assert sentence_of(summary).startswith("0 of 0 images stored in ")
    assert sentence_of(summary | {"images": 1, "stored": 1}).startswith("1 of 1 image stored in ")


def test_images_come_from_a_generator_as_well(node_of: Callable[..., Node]) -> None:
    """An iterable is read once."""
    node = node_of()
    answers = send_images(islice((image_in(path) for path in real_files()), 2), node.scanner)
    assert len(answers) == 2
