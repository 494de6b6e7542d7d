"""The brain mask beside the main model: what is asked when, what it may take away, and what it may not."""

import threading
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from contracts.errors import NotAnalysable
from contracts.events import NotAnalysed, Scored
from contracts.findings import Label
from contracts.hooks import Silent
from contracts.names import Lane
from contracts.reasons import Reason
from contracts.scans import Place, ScanHeaders
from contracts.settings import FlaggingSettings
from contracts.tensors import BRAIN_MASK, HEAD_CT_LESION
from worker.flagging.verdict import Evidence, Slice
from worker.scoring.analysis import Analysis, Work
from worker.scoring.decode import Budget
from worker.scoring.inference import Request
from worker.scoring.inside import HINT_FROM, Inside
from worker.scoring.measure import Answer, ServedModel, measures_of
from worker.scoring.part10 import meta_of

SIDE, PITCH_MM = 36, 6.4
LABELS = HEAD_CT_LESION.labels
LESION = ServedModel("head_ct_lesion", "1", LABELS, dict.fromkeys(LABELS, 0.5), PITCH_MM)
BRAIN = ServedModel("brain_mask", "1", (), {}, PITCH_MM)


def marked(rows: slice, columns: slice, probability: float = 0.9) -> Answer:
    """A bleed, called and marked there."""
    probabilities = np.zeros(len(LABELS), np.float32)
    probabilities[:2] = probability
    segmentation = np.zeros((len(LABELS) - 1, SIDE, SIDE), np.float32)
    segmentation[0, rows, columns] = 0.9
    return Answer(probabilities, segmentation, LESION)


def brain(radius: float) -> Answer:
    """A disc about the middle; none for radius 0."""
    away = np.hypot(*(np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2))
    return Answer(np.empty(0, np.float32), (away < radius).astype(np.float32)[None], BRAIN)


MIDDLE, CORNER = slice(16, 20), slice(0, 4)


class Asking:
    """Answers by model, and keeps whom it was asked for."""

    def __init__(self, lesion: Answer, mask: Answer | NotAnalysable) -> None:
        self.asked: list[str] = []
        self._answers: dict[str, Answer | NotAnalysable] = {HEAD_CT_LESION.name: lesion, BRAIN_MASK.name: mask}

    def __call__(self, request: Request) -> Callable[[], Answer]:
        """As `Ask`."""
        self.asked.append(request.spec.name)
        answer = self._answers[request.spec.name]

        def wait() -> Answer:
            if isinstance(answer, NotAnalysable):
                raise answer
            return answer

        return wait


def analysed(bench_headers: Any, payload: bytes, asking: Asking, *, masks: bool = True) -> Scored | NotAnalysed:
    """The one event of a single-frame image."""
    analysis = Analysis(Budget(1 << 28, 1 << 28), threading.Semaphore(1), Silent(), masks=masks)
    work = Work(bench_headers(payload), payload, Place("t", 0, 0), 0.0)
    (event,) = analysis.events(work, asking)
    return event


@pytest.fixture(scope="session")
def headers_of() -> Any:
    """Makes scan headers for a payload."""

    def made(payload: bytes) -> ScanHeaders:
        transfer_syntax, _ = meta_of(payload)
        return ScanHeaders(
            study_instance_uid="1.2",
            series_instance_uid="1.2.1",
            sop_instance_uid="1.2.1.1",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax_uid=transfer_syntax,
            digest="d",
            pixel_digest="p",
            source="TEST",
            received_at=1.0,
            traceparent="",
            size_bytes=len(payload),
            lane=Lane.ROUTINE,
        )

    return made


def changed(payload: bytes, hu: Callable[[NDArray[Any]], NDArray[Any]]) -> bytes:
    """The slice with other pixels."""
    data = pydicom.dcmread(BytesIO(payload))
    data.PixelData = hu(data.pixel_array.copy()).astype(data.pixel_array.dtype).tobytes()
    out = BytesIO()
    data.save_as(out, enforce_file_format=True)
    return out.getvalue()


def halved(pixels: NDArray[Any]) -> NDArray[Any]:
    """Air where the front half was: the ring is open, so the rays are no longer sure."""
    pixels[: len(pixels) // 2] = pixels.min()
    return pixels


def tagged(payload: bytes) -> bytes:
    """The slice says that it is of a head."""
    data = pydicom.dcmread(BytesIO(payload))
    data.BodyPartExamined = "HEAD"
    out = BytesIO()
    data.save_as(out, enforce_file_format=True)
    return out.getvalue()


def test_a_plain_head_without_a_finding_costs_no_second_question(headers_of: Any, small_head: bytes) -> None:
    """Most images: the tags say head, the rays are sure, nothing was found."""
    asking = Asking(marked(MIDDLE, MIDDLE, probability=0.1), brain(10))
    event = analysed(headers_of, tagged(small_head), asking)
    assert isinstance(event, Scored)
    assert asking.asked == ["head_ct_lesion"]


def test_a_slice_that_may_be_no_head_is_asked_for_beside_and_refused_without_brain(
    headers_of: Any, small_head: bytes
) -> None:
    """Whatever its tags say: a chest sent as a head is not analysed, never *not flagged*."""
    asking = Asking(marked(MIDDLE, MIDDLE), brain(0))
    event = analysed(headers_of, changed(tagged(small_head), halved), asking)
    assert isinstance(event, NotAnalysed)
    assert event.reason is Reason.CONTENT_OUT_OF_SCOPE
    assert asking.asked == ["head_ct_lesion", "brain_mask"]


def test_a_slice_that_may_be_no_head_is_scored_where_brain_is_seen(headers_of: Any, small_head: bytes) -> None:
    """Through the skull base, at the vertex, with half of the head outside the image."""
    asking = Asking(marked(MIDDLE, MIDDLE), brain(6))
    event = analysed(headers_of, changed(tagged(small_head), halved), asking)
    assert isinstance(event, Scored)
    assert event.measures[Label.ANY].area_mm2 == 16 * PITCH_MM**2


def test_what_was_found_is_measured_inside_the_head(headers_of: Any, small_head: bytes) -> None:
    """The mask is asked for only then; what lies outside is told apart."""
    lesion = marked(MIDDLE, MIDDLE)
    lesion.segmentation[0, CORNER, CORNER] = 0.9
    asking = Asking(lesion, brain(10))
    event = analysed(headers_of, tagged(small_head), asking)
    assert isinstance(event, Scored)
    measure = event.measures[Label.INTRAPARENCHYMAL]
    assert (measure.area_mm2, measure.outside_mm2) == (16 * PITCH_MM**2, 16 * PITCH_MM**2)
    assert asking.asked == ["head_ct_lesion", "brain_mask"]


@pytest.mark.parametrize("payload_of", [tagged, lambda payload: changed(tagged(payload), halved)], ids=["sure", "not"])
def test_a_mask_that_cannot_be_had_takes_no_score_away(
    headers_of: Any, small_head: bytes, payload_of: Callable[[bytes], bytes]
) -> None:
    """An invalid answer of the second model is not the image's fault."""
    asking = Asking(marked(MIDDLE, MIDDLE), NotAnalysable(Reason.MODEL_ANSWER_INVALID))
    event = analysed(headers_of, payload_of(small_head), asking)
    assert isinstance(event, Scored)
    assert event.measures[Label.ANY].outside_mm2 == 0.0


def test_a_finding_in_a_head_without_brain_stands(headers_of: Any, small_head: bytes) -> None:
    """Rays sure, mask empty: a contradiction, and a contradiction takes nothing away."""
    event = analysed(headers_of, tagged(small_head), Asking(marked(MIDDLE, MIDDLE), brain(0)))
    assert isinstance(event, Scored)
    assert event.measures[Label.ANY].area_mm2 == 16 * PITCH_MM**2


def test_without_the_setting_nothing_but_the_main_model_is_asked(headers_of: Any, small_head: bytes) -> None:
    """A repository without the second model serves as before."""
    asking = Asking(marked(MIDDLE, MIDDLE), brain(0))
    assert isinstance(analysed(headers_of, changed(tagged(small_head), halved), asking, masks=False), Scored)
    assert asking.asked == ["head_ct_lesion"]


@given(radius=st.floats(0, 17), pitch_mm=st.floats(0.8, 8.0), side=st.integers(8, 160))
def test_room_is_left_around_the_mask_on_any_grid(radius: float, pitch_mm: float, side: int) -> None:
    """Every sample nearer to the middle than the disc is inside; everything is where no brain is seen."""
    inside = Inside.told_by(brain(radius)).on((side, side), pitch_mm)
    away_mm = np.hypot(*(np.mgrid[:side, :side] - (side - 1) / 2)) * pitch_mm
    within_grid = away_mm < SIDE * PITCH_MM / 2
    assert inside[(away_mm < (radius - 1) * PITCH_MM) & within_grid].all()
    if radius > 1:
        assert not inside[(away_mm > (radius + 3) * PITCH_MM) & within_grid].any()
    else:
        assert radius > 0.5 or inside.all()


def test_a_hint_of_brain_is_enough_and_none_is_not() -> None:
    """A wrong no costs a score: three faint samples of 41 mm² hold brain, two do not."""
    chance = np.zeros((SIDE, SIDE), np.float32)
    chance[0, :2] = HINT_FROM
    assert not Inside(chance, PITCH_MM).holds_brain
    chance[0, 2] = HINT_FROM
    assert Inside(chance, PITCH_MM).holds_brain


def test_findings_outside_the_head_make_no_volume_and_no_flag() -> None:
    """Four slices marked beyond the skull alone are no finding; the same marks within it are."""
    for shown, wanted in ((CORNER, 0), (MIDDLE, 1)):
        inside = Inside.told_by(brain(10)).on((SIDE, SIDE), PITCH_MM)
        measures = measures_of(marked(shown, shown), inside)
        evidence = Evidence(FlaggingSettings())
        for nth in range(4):
            evidence.put(nth, Slice(f"1.{nth}", "1", "axial", nth * 5.0, 5.0, measures))
        assert len(evidence.findings(final=True)) == wanted


def test_a_mask_that_marks_nothing_at_all_is_of_unknown_size_still() -> None:
    """A positive without any mark passes as before: only marks outside are known to be none inside."""
    empty = replace(marked(MIDDLE, MIDDLE), segmentation=np.zeros((len(LABELS) - 1, SIDE, SIDE), np.float32))
    measures = measures_of(empty, Inside.told_by(brain(10)).on((SIDE, SIDE), PITCH_MM))
    assert measures[Label.ANY].outside_mm2 == 0.0
    evidence = Evidence(FlaggingSettings())
    for nth in range(2):
        evidence.put(nth, Slice(f"1.{nth}", "1", "axial", nth * 5.0, 5.0, measures))
    assert evidence.findings(final=True)
