"""Triton over gRPC against a real server: answers, deadlines, and whose fault a failure is."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contracts.deadline import Deadline
from contracts.errors import NotAnalysable, PeerAway, PeerBusy, PeerRefused, PeerTimeout
from contracts.findings import Label
from contracts.names import Lane
from contracts.reasons import Reason
from contracts.settings import TritonSettings
from contracts.tensors import BRAIN_MASK, HEAD_CT_LESION
from worker.scoring.decode import Budget, frames_of, read
from worker.scoring.hounsfield import hounsfield
from worker.scoring.inference import Request
from worker.scoring.inside import Inside
from worker.scoring.measure import measures_of
from worker.scoring.triton_call import TritonCall

pytestmark = pytest.mark.stack

NAN, SHAPE, ERROR, SLOW, RANGE, INVALID = 101, 102, 103, 104, 105, 106


def image(fault: int = 0, lane: Lane = Lane.ROUTINE) -> Request:
    """A small image that asks the model for a fault."""
    hu = np.full((64, 80), -1000, dtype=np.float16)
    hu[0, 0] = fault
    return Request(HEAD_CT_LESION, hu, (0.5, 0.5), lane)


def soon(seconds: float = 10.0) -> Deadline:
    """A deadline in that many seconds."""
    return Deadline.after(seconds, time.monotonic)


@pytest.fixture
def call(faulty_triton: Any, told: Any) -> Iterator[TritonCall]:
    """A client of the model that fails on demand."""
    client = TritonCall(TritonSettings(url=faulty_triton.grpc, breaker_open_s=0.3), told)
    yield client
    client.close()


@pytest.mark.parametrize("lane", list(Lane))
def test_an_image_is_answered_with_the_models_own_labels_and_grid(call: TritonCall, lane: Lane) -> None:
    """Probabilities, segmentation, version and grid pitch come from the server."""
    answer = call.infer(image(lane=lane), soon())
    measures = measures_of(answer)
    assert answer.model.version == "1"
    assert measures[Label.INTRAPARENCHYMAL].probability == 0.25
    assert measures[Label.INTRAPARENCHYMAL].area_mm2 == 4.0
    assert measures[Label.INTRAPARENCHYMAL].centroid_mm == (-3.0, -1.0)


def test_the_shipped_model_answers_a_real_head(triton: Any, told: Any, head: bytes) -> None:
    """The model's real configuration is the contract's: labels, thresholds, tensors."""
    budget = Budget(1 << 30, 1 << 30)
    instance = read(head, "", budget)
    facts = instance.frame_facts(0)
    hu = hounsfield(next(frames_of(instance, budget)), facts, instance.data)
    client = TritonCall(TritonSettings(url=triton.grpc), told)
    answer = client.infer(Request(HEAD_CT_LESION, hu, facts.spacing_mm or (0.0, 0.0)), soon(30.0))
    client.close()
    assert answer.probabilities.shape == (6,)
    assert set(measures_of(answer)) == set(HEAD_CT_LESION.labels)
    assert told.counts["inference_seconds:head_ct_lesion:1"] == 1


@pytest.mark.parametrize("fault", [NAN, SHAPE, RANGE])
def test_an_invalid_answer_is_never_a_score(call: TritonCall, fault: int) -> None:
    """NaN, another shape, beyond 1: the image is not analysed."""
    with pytest.raises(NotAnalysable) as refused:
        call.infer(image(fault), soon())
    assert refused.value.reason is Reason.MODEL_ANSWER_INVALID


def test_an_image_that_the_server_calls_invalid_is_blamed_when_another_is_answered(call: TritonCall, told: Any) -> None:
    """INVALID_ARGUMENT, by the model or by Triton itself (another rank): not repeated, and a witness is asked."""
    deep = replace(image(), hu=np.zeros((64, 80, 3), dtype=np.float16))
    for invalid in (image(INVALID), deep):
        with pytest.raises(PeerRefused) as failed:
            call.infer(invalid, soon())
        assert call.blames(invalid, failed.value)
    assert told.counts["inference_retry"] == 0
    assert not call.holding_off


def test_a_model_that_calls_every_image_invalid_is_no_images_fault(call: TritonCall) -> None:
    """A model with other inputs than the contract's refuses the witness too: its images wait until it is mended."""
    hu, spacing = HEAD_CT_LESION.inputs
    other = replace(image(), spec=replace(HEAD_CT_LESION, inputs=(replace(hu, name="PIXELS"), spacing)))
    with pytest.raises(PeerRefused) as failed:
        call.infer(other, soon())
    assert not call.blames(other, failed.value)


def test_a_model_that_is_not_there_is_a_peer_that_is_away(call: TritonCall) -> None:
    """Not in the repository, or not loaded yet: no image is blamed for it."""
    unknown = replace(image(), spec=replace(HEAD_CT_LESION, name="nobody_knows_it"))
    with pytest.raises(PeerAway) as failed:
        call.infer(unknown, soon())
    assert failed.value.retriable
    assert not call.blames(unknown, failed.value)


def test_an_image_that_breaks_the_model_is_blamed_when_another_is_answered(call: TritonCall, told: Any) -> None:
    """INTERNAL may be anybody's fault: it is repeated, and then a witness is asked."""
    with pytest.raises(PeerBusy) as failed:
        call.infer(image(ERROR), soon())
    assert told.counts["inference_retry"] == 2
    assert call.blames(image(ERROR), failed.value)


def test_no_answer_by_the_deadline_is_a_timeout(call: TritonCall) -> None:
    """The deadline that was handed down is the request's, not the settings' ten seconds: this answer takes three."""
    with pytest.raises(PeerTimeout):
        call.infer(image(SLOW), soon(0.5))


def test_requests_in_flight_do_not_wait_for_a_slow_one(call: TritonCall) -> None:
    """Asynchronous: an image sent after a slow one is answered before it."""
    slow = call.start(image(SLOW), soon())
    answered: list[str] = []
    call.infer(image(), soon())
    answered.append("fast")
    slow()
    assert answered == ["fast"]


def test_a_server_that_is_away_is_no_images_fault(told: Any, free_port: Callable[[], int]) -> None:
    """Unreachable: retriable, never blamed, and the breaker opens."""
    call = TritonCall(TritonSettings(url=f"127.0.0.1:{free_port()}", breaker_failures=3, breaker_open_s=60.0), told)
    with pytest.raises(PeerAway) as failed:
        call.infer(image(), soon(5.0))
    assert failed.value.retriable
    assert not call.blames(image(), failed.value)
    assert call.holding_off
    assert told.last["peer_up:triton"] == 0.0
    assert told.last["breaker_open:triton"] == 1.0
    with pytest.raises(PeerAway, match="breaker"):
        call.start(image(), soon(5.0))
    assert not call.up()
    call.close()


def test_the_brain_mask_answers_a_real_head_and_holds_brain(triton: Any, told: Any, head: bytes) -> None:
    """The second model through the same client: no labels, one channel, and brain where there is some."""
    budget = Budget(1 << 30, 1 << 30)
    instance = read(head, "", budget)
    facts = instance.frame_facts(0)
    hu = hounsfield(next(frames_of(instance, budget)), facts, instance.data)
    client = TritonCall(TritonSettings(url=triton.grpc), told)
    asked = client.infer(Request(BRAIN_MASK, hu, facts.spacing_mm or (0.0, 0.0)), soon(30.0))
    air = client.infer(Request(BRAIN_MASK, np.full_like(hu, -1000), (0.5, 0.5)), soon(30.0))
    client.close()
    assert asked.probabilities.shape == (0,)
    assert Inside.told_by(asked).holds_brain
    assert not Inside.told_by(air).holds_brain
