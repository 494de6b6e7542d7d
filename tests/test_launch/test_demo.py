"""The demo's pure parts: what is sent, what is measured, what it says, and when it may end with 0."""

import itertools
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.filebase import DicomBytesIO
from rich.console import Console

from contracts.errors import TriageError
from launch.demo import _own, _sentence
from launch.demo_board import ENDED, Board, faults, result
from launch.demo_in import server_sent
from launch.demo_studies import DemoStudy, Truth, default_studies, studies_in
from launch.demo_view import line_of, studies_table, worklist_table
from launch.scanner_in import Image

BLEED, CLEAN = "1.2.1", "1.2.2"


def item(uid: str, state: str, received: int, settled: int, **more: Any) -> dict[str, Any]:
    """A row of the worklist, as much of it as the demo reads."""
    row = {"study_instance_uid": uid, "state": state, "images_received": received, "images_settled": settled}
    return {"closed": state != "receiving", "reason": None, "urgency": "routine", "provisional": False, **row, **more}


def sent(board: Board, uid: str, images: int, at_s: float = 100.0, first: int = 0) -> None:
    """So many images of the study, one a second, each answered half a second after it began."""
    for nth in range(first, first + images):
        board.sent(uid, f"{uid}.{nth}", None, at_s + nth, at_s + nth + 0.5)


def settled(board: Board, uid: str, images: int, settlements: int = 1) -> None:
    board.looked_into(uid, [{"sop_instance_uid": f"{uid}.{n}", "settlements": settlements} for n in range(images)])


def good_run() -> Board:
    """Two studies, interleaved; the bleed is flagged after two of its three images."""
    board = Board()
    board.begin(CLEAN, "clean head", "clean", 3)
    board.begin(BLEED, "bleeding head", "lesion", 3)
    sent(board, CLEAN, 3, at_s=100.0)
    sent(board, BLEED, 2, at_s=102.0)
    board.told(item(BLEED, "flagged", 2, 2, provisional=True, urgency="critical", closed=False), 104.25)
    sent(board, BLEED, 1, at_s=102.0, first=2)
    rows = [item(BLEED, "flagged", 3, 3, urgency="critical"), item(CLEAN, "not_flagged", 3, 3)]
    board.listed("ok", [item("1.2.9", "not_flagged", 1, 1), *rows], 120.0)
    settled(board, BLEED, 3)
    settled(board, CLEAN, 3)
    return board


def test_a_good_run_gives_the_object_that_was_promised() -> None:
    """Every field of the contract; studies in the order of sending, the list in the order of reading, ours only."""
    board = good_run()
    assert faults(board) == []
    assert result(board) == {
        "sent": {"studies": 2, "images": 6, "seconds": 4.5},
        "studies": [
            {
                "study_instance_uid": CLEAN,
                "truth": "clean",
                "state": "not_flagged",
                "reason": None,
                "urgency": "routine",
                "images_sent": 3,
                "images_settled": 3,
                "first_flag_after_images": None,
                "first_flag_s": None,
                "last_image_s": 2.5,
            },
            {
                "study_instance_uid": BLEED,
                "truth": "lesion",
                "state": "flagged",
                "reason": None,
                "urgency": "critical",
                "images_sent": 3,
                "images_settled": 3,
                "first_flag_after_images": 2,
                "first_flag_s": 2.25,
                "last_image_s": 2.5,
            },
        ],
        "worklist": [BLEED, CLEAN],
    }


def test_only_the_first_flag_is_measured() -> None:
    """Later news of a flagged study does not move the moment, even after the flag was withdrawn and came again."""
    board = good_run()
    first = (board.studies[BLEED].flag_s, board.studies[BLEED].flag_images)
    board.told(item(BLEED, "not_flagged", 3, 3), 130.0)
    assert not board.told(item(BLEED, "flagged", 3, 3), 140.0)
    assert (board.studies[BLEED].flag_s, board.studies[BLEED].flag_images) == first


def test_a_study_of_somebody_else_is_not_ours() -> None:
    """A stack that lives has other studies in its list; they are neither measured nor told."""
    board = good_run()
    assert not board.told(item("1.2.9", "flagged", 1, 1), 130.0)
    assert "1.2.9" not in result(board)["worklist"]


def spoil(board: Board, how: str) -> None:
    """One thing that must not be."""
    match how:
        case "unsettled":
            settled(board, BLEED, 2)
        case "settled twice":
            settled(board, BLEED, 3, settlements=2)
        case "refused":
            board.sent(BLEED, f"{BLEED}.2", "0xC000", 104.0, 104.5)
        case "not listed":
            board.listed("ok", [item(CLEAN, "not_flagged", 3, 3)], 121.0)
        case "still receiving":
            board.told(item(BLEED, "receiving", 3, 3), 121.0)
        case "partly sent":
            board.studies[BLEED].images = 4
        case "never begun":
            board.studies.clear()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("unsettled", "1 of 3 images is not settled exactly once"),
        ("settled twice", "3 of 3 images are not settled exactly once"),
        ("refused", "1 image was refused (0xC000)"),
        ("not listed", "it is not in the worklist"),
        ("still receiving", "it ended as receiving"),
        ("partly sent", "only a part of its images was sent"),
        ("never begun", "nothing was sent"),
    ],
)
def test_whatever_is_lost_is_a_fault_with_a_sentence(how: str, said: str) -> None:
    """Exit code 0 means that nothing was: each of these alone forbids it."""
    board = good_run()
    spoil(board, how)
    assert any(said in fault for fault in faults(board))


def test_a_resend_with_other_pixels_counts_only_when_both_are_settled() -> None:
    """One SOP Instance UID, two rows: the unsettled one forbids the settlement of the instance."""
    board = good_run()
    rows = [{"sop_instance_uid": f"{BLEED}.0", "settlements": count} for count in (1, 0)]
    board.looked_into(BLEED, rows)
    assert board.studies[BLEED].settled == set()


@pytest.mark.parametrize(
    ("change", "ended"),
    [
        ({}, True),
        ({"closed": False}, False),
        ({"state": "receiving"}, False),
        ({"images_settled": 2}, False),
        ({"images_received": 2, "images_settled": 2}, False),
    ],
)
def test_a_study_has_ended_when_all_it_was_sent_is_settled_and_it_closed(
    change: Mapping[str, Any], *, ended: bool
) -> None:
    """A study that closed before its last image arrived has not ended: it will be opened again."""
    board = good_run()
    board.told({**item(BLEED, "flagged", 3, 3), **change}, 130.0)
    assert board.studies[BLEED].ended is ended
    assert board.all_ended() is ended


def test_a_study_of_which_nothing_was_taken_is_not_waited_for() -> None:
    """It can never appear in the list; it is a fault, told at once."""
    board = Board()
    board.begin(BLEED, "b", None, 1)
    assert not board.all_ended()
    board.sent(BLEED, "1", "0xA900", 1.0, 2.0)
    assert board.all_ended()
    assert faults(board)


@given(st.permutations(range(6)), st.integers(0, 5))
def test_the_order_of_answers_changes_no_measure_but_the_flags(order: list[int], flagged_after: int) -> None:
    """Answers of several associations come in any order: first, last and counts are the same."""
    board = Board()
    board.begin(BLEED, "b", "lesion", 6)
    for place, nth in enumerate(order):
        board.sent(BLEED, str(nth), None, 10.0 + nth, 10.5 + nth)
        if place == flagged_after:
            board.told(item(BLEED, "flagged", 6, 6), 20.0)
    (study,) = result(board)["studies"]
    assert (study["images_sent"], study["last_image_s"], study["first_flag_s"]) == (6, 5.5, 10.0)
    assert study["first_flag_after_images"] == flagged_after + 1


def pixels(image: Image) -> bytes:
    return bytes(dcmread(DicomBytesIO(image.load()), force=True).PixelData)


def identity(study: DemoStudy) -> tuple[object, ...]:
    return (study.study_instance_uid, study.label, study.truth, [image.load() for image in study.images])


def test_the_same_seed_sends_the_same_bytes_and_another_seed_other_studies() -> None:
    """A second demo with another seed adds studies to a stack that lives; one with the same seed is a resend."""
    first, again, other = (list(default_studies(seed, 4)) for seed in (7, 7, 8))
    assert [identity(study) for study in first] == [identity(study) for study in again]
    assert not {s.study_instance_uid for s in first} & {s.study_instance_uid for s in other}
    sops = [{i.sop_instance_uid for s in run for i in s.images} for run in (first, other)]
    assert not sops[0] & sops[1]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 9])
def test_so_many_studies_as_asked_for_and_a_bleed_among_them_but_not_first(count: int) -> None:
    """What jumps must have something to jump over; UIDs are distinct."""
    studies = list(default_studies(1, count))
    truths = [study.truth for study in studies]
    assert len({study.study_instance_uid for study in studies}) == count
    assert Truth.LESION in truths
    assert count == 1 or truths[0] is Truth.CLEAN
    assert count < 3 or Truth.OUT_OF_SCOPE in truths
    assert count < 4 or None in truths


def test_the_real_images_keep_pixels_and_encoding_and_only_change_their_uids() -> None:
    """The head CT slice stays JPEG 2000, bit for bit, with its wrong PixelRepresentation and all."""
    real = next(study for study in default_studies(3, 6) if study.label.startswith("one head CT slice"))
    original = dcmread(str(get_testdata_file("J2K_pixelrep_mismatch.dcm", download=False)))
    (image,) = real.images
    assert image.transfer_syntax_uid == original.file_meta.TransferSyntaxUID
    arrived = dcmread(DicomBytesIO(image.load()), force=True)
    changed = {e.keyword for e in original if e.tag not in arrived or arrived[e.tag].value != e.value}
    assert changed == {"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"}
    assert str(arrived.SOPInstanceUID) == image.sop_instance_uid


def test_a_folder_of_your_own_is_grouped_by_study_and_ordered_by_instance() -> None:
    """Pydicom's folder of three patients: each study once, no DICOMDIR, images in their order, truth unknown."""
    folder = Path(str(get_testdata_file("DICOMDIR", download=False))).parent / "98892003"
    studies, left_out = studies_in(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(len(study.images) for study in studies) + left_out == len(files)
    for study in studies:
        headers = [dcmread(image.name, stop_before_pixels=True) for image in study.images]
        assert {str(header.StudyInstanceUID) for header in headers} == {study.study_instance_uid}
        places = [(int(h.SeriesNumber or 0), str(h.SeriesInstanceUID), int(h.InstanceNumber or 0)) for h in headers]
        assert places == sorted(places)
        assert study.truth is None
    assert len({study.study_instance_uid for study in studies}) == len(studies)


def test_a_folder_without_dicom_is_a_sentence(tmp_path: Path) -> None:
    """Files that are no DICOM are left out; a folder of nothing else is an error."""
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(TriageError, match="no DICOM file"):
        studies_in(tmp_path)


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        (0, ""),
        (1, "1 file of {} is no DICOM Part 10 file and is left out."),
        (2, "2 files of {} are no DICOM Part 10 files and are left out."),
    ],
)
def test_what_is_left_out_of_a_folder_of_your_own_is_counted_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], beside: int, said: str
) -> None:
    """One file is one file."""
    shutil.copy(str(get_testdata_file("CT_small.dcm", download=False)), tmp_path)
    for number in range(beside):
        (tmp_path / f"notes-{number}.txt").write_text("x")
    assert len(_own(tmp_path)) == 1
    assert capsys.readouterr().err == (f"triage demo: {said.format(tmp_path)}\n" if said else "")


def test_one_study_of_one_image_is_told_in_the_singular() -> None:
    """The last sentence counts in words, as people do."""
    board = good_run()
    assert re.fullmatch(r"\d+ of 6 images settled; 2 studies sent in [\d.]+ s\.", _sentence(board))
    del board.studies[BLEED]
    board.studies[CLEAN].sops = {"1"}
    assert re.fullmatch(r"\d of 1 image settled; 1 study sent in [\d.]+ s\.", _sentence(board))


def test_server_sent_events_are_read_as_the_standard_says() -> None:
    """Comments and heartbeats are nothing, data may have several lines, the id stays until the next."""
    text = ': ping\n\nid: 1-0\nevent: flagged\ndata: {"a":\ndata: 1}\n\n: ping\nevent:closed\ndata:{"b": 2}\n\nid: 9\n'
    assert list(server_sent(text.splitlines())) == [("1-0", "flagged", {"a": 1}), ("1-0", "closed", {"b": 2})]


def test_a_line_tells_state_counts_flag_and_place() -> None:
    """What a build's log shows instead of tables."""
    board = good_run()
    told = line_of(board.studies[BLEED], board)
    flag = "first flag at image 2 of 3, 2.2 s"
    assert told == f"bleeding head: ended as flagged, 3 sent, 3 settled, {flag}, place 2 of 3"


def test_the_truth_is_not_shown_as_a_result() -> None:
    """The tables show what was sent under "sent", and under "state" only what the worklist said."""
    board = good_run()
    board.told(item(CLEAN, "not_analysed", 3, 3, reason="modality_out_of_scope"), 130.0)
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123 — recorded instead
    console.print(studies_table(board, 20))
    console.print(worklist_table(board))
    text = console.export_text()
    assert "not analysed (modality out of scope)" in text
    assert "lesion" not in text
    assert text.index("clean head") < text.index("bleeding head")  # as sent
    lower = text[text.index("read from the top") :]
    assert lower.index("bleeding head") < lower.index("clean head")  # as read


def test_every_end_has_a_fault_or_none() -> None:
    """A study that ended in any of the three states is no fault of the demo, whatever its truth."""
    for state, truth in itertools.product(ENDED, ("lesion", "clean", "out_of_scope", None)):
        board = good_run()
        board.studies[BLEED].truth = truth
        board.told(item(BLEED, state, 3, 3), 130.0)
        assert faults(board) == []
