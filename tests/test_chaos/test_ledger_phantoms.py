"""The heads that scanners send are what the ledger says of them: in scope, readable, with a lesion or without."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.bright_block import positive
from chaos.crew_call import SOONER
from chaos.ledger import is_finding, key_of
from chaos.phantoms import Head, Picture, heads
from chaos.scenario import Load, Order
from chaos.sendings import sendings
from contracts.errors import NotAnalysable
from contracts.names import Lane
from contracts.reasons import Reason
from producer.intake import Accepted, Door, Received, examine
from producer.lanes import Lanes
from worker.scoring.content import head_likeness
from worker.scoring.decode import Budget, frames_of, read
from worker.scoring.hounsfield import hounsfield
from worker.scoring.routing import check_frame, way_of

LOAD = Load(studies=5, images=(6, 8), poison=2, other_bytes=2, large=0.2)
ROOM = Budget(10**8, 10**7)


@pytest.fixture(scope="module")
def studies() -> tuple[Head, ...]:
    """Some of every kind."""
    return heads(LOAD, 3, "phantoms")


def pictures(studies: tuple[Head, ...]) -> list[Picture]:
    """All of them."""
    return [picture for study in studies for picture in study.pictures]


def accepted(picture: Picture) -> Accepted:
    """As the producer takes it in."""
    received = Received(picture.part10, Door.DICOM, "CHAOS", 0.0, "")
    return examine(received, Lanes(()))


def test_every_readable_image_is_routed_decoded_and_judged_as_the_ledger_says(studies: tuple[Head, ...]) -> None:
    """Scoring's own routing, content and decoding take it, and the stand-in model's rule finds what is in it."""
    for picture in (one for one in pictures(studies) if one.readable):
        instance = read(picture.part10, "", ROOM)
        frame = instance.frame_facts(0)
        check_frame(frame, instance.facts, way_of(instance.facts).route)
        hu = hounsfield(next(frames_of(instance, ROOM)), frame, instance.data)
        assert frame.spacing_mm is not None
        assert head_likeness(hu, frame.spacing_mm).is_head()
        assert positive(hu, frame.spacing_mm) is picture.lesion


def test_a_poisoned_image_is_in_scope_and_no_decoder_reads_it(studies: tuple[Head, ...]) -> None:
    """It gets as far as the decoder, which fails: the image's own fault."""
    poisoned = [picture for picture in pictures(studies) if not picture.readable]
    assert len(poisoned) == LOAD.poison
    for picture in poisoned:
        instance = read(picture.part10, "", ROOM)
        check_frame(instance.frame_facts(0), instance.facts, way_of(instance.facts).route)
        with pytest.raises(NotAnalysable) as problem:
            next(frames_of(instance, ROOM))
        assert problem.value.reason is Reason.PIXELS_UNDECODABLE
        assert "size" not in str(problem.value)  # not stopped before the decoder


def test_the_ledger_knows_an_image_by_the_digest_that_the_worklist_tells(studies: tuple[Head, ...]) -> None:
    """The producer makes the same digest of the data set, and takes every image."""
    for picture in pictures(studies):
        headers = accepted(picture).headers
        assert (headers.study_instance_uid, headers.sop_instance_uid, headers.digest) == key_of(picture)
        assert headers.lane is Lane.ROUTINE  # stat only by DIMSE priority


def test_the_same_uid_with_other_pixels_is_another_image(studies: tuple[Head, ...]) -> None:
    """So many studies have one SOP Instance UID twice, with two pixel digests."""
    doubled = [
        [p for p in study.pictures if p.sop_instance_uid == uid]
        for study in studies
        for uid, count in Counter(p.sop_instance_uid for p in study.pictures).items()
        if count > 1
    ]
    assert len(doubled) == LOAD.other_bytes
    for first, second in doubled:
        assert accepted(first).headers.pixel_digest != accepted(second).headers.pixel_digest
        assert (first.nth, first.lesion) == (second.nth, second.lesion)


def test_large_images_go_to_the_claim_check_and_small_ones_do_not(studies: tuple[Head, ...]) -> None:
    """By the limit that the rig sets."""
    limit = int(str(SOONER["payload.inline_limit_bytes"]))
    rows = {picture.digest: read(picture.part10, "", ROOM).facts.rows for picture in pictures(studies)}
    large = [picture for picture in pictures(studies) if len(picture.part10) > limit]
    assert {rows[picture.digest] for picture in large} == {256}
    assert 0 < len(large) < len(rows)


def test_the_same_seed_and_name_give_the_same_bytes_and_another_run_shares_no_uid() -> None:
    """A violation can be sent again; what one run left behind is in no other's way."""
    first, again, other = (heads(LOAD, 3, name) for name in ("a", "a", "b"))
    assert first == again
    uids = [
        {p.sop_instance_uid for s in run for p in s.pictures} | {s.study_instance_uid for s in run}
        for run in (first, other)
    ]
    assert not uids[0] & uids[1]


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 8), st.sampled_from([0.0, 0.4, 1.0]), st.integers(0, 10**6))
def test_shares_are_counts(count: int, share: float, seed: int) -> None:
    """Positive and stat studies are as many as the load says; each positive one is a finding by its slices alone."""
    studies = heads(Load(studies=count, images=(3, 4), positive=share, stat=share), seed, "counts")
    assert sum(is_finding(study.pictures) for study in studies) == round(share * count)
    assert sum(study.stat for study in studies) == round(share * count)
    assert all(3 <= len(study.pictures) <= 4 for study in studies)


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("copies", [1, 3])
def test_every_image_is_sent_as_often_as_the_load_says(studies: tuple[Head, ...], order: Order, copies: int) -> None:
    """Whatever the order; late images come in sendings of their own, last; a share of studies comes by STOW."""
    load = Load(studies=5, order=order, copies=copies, stow=0.4)
    plan = sendings(studies, load, 2, 1)
    times = Counter(picture.digest for sending in plan for picture in sending.pictures)
    assert times == {picture.digest: copies for picture in pictures(studies)}
    assert len({sending.study_instance_uid for sending in plan if sending.stow}) == 2
    assert any(sending.late for sending in plan) is (order is Order.LATE)
    assert [sending.late for sending in plan] == sorted(sending.late for sending in plan)
    assert {sending.producer for sending in plan} == {0, 1}
    whole = {study.study_instance_uid: study.pictures for study in studies}
    assert (order is Order.IN_ORDER) is all(one.pictures == whole[one.study_instance_uid] for one in plan)
    assert (order is Order.IN_ORDER) is (len(plan) == copies * len(studies))


@pytest.mark.parametrize("seed", range(1, 9))
def test_with_every_fourth_seed_one_piece_is_minutes_late(studies: tuple[Head, ...], seed: int) -> None:
    """Two to four minutes after its study has closed; its wait begins before that of the other late pieces."""
    plan = sendings(studies, Load(studies=5, order=Order.LATE), 2, seed)
    late = [sending for sending in plan if sending.late]
    held_back = [sending for sending in plan if sending.pause_s]
    assert held_back == (late[:1] if seed % 4 == 0 else [])
    assert all(120.0 <= sending.pause_s <= 240.0 for sending in held_back)
    assert not any(s.pause_s for s in sendings(studies, Load(studies=5), 2, seed))
