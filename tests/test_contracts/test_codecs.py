"""Records, events and settings: what is written is what is read, and anything else is one clear error."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import events
from contracts.errors import DecodeError
from contracts.findings import Label, Measure, Patient, volume_words
from contracts.hooks import Happening
from contracts.metrics import METRICS, STAGE_IN, STAGE_NOW, STAGE_OUT, STAGE_SECONDS, Kind
from contracts.names import Lane, RedisKeys, Topics, partition_of
from contracts.reasons import SENTENCES, Category, Reason
from contracts.scans import ScanHeaders

uids = st.from_regex(r"\A[0-9]{1,8}(\.[0-9]{1,8}){1,5}\Z")
hexes = st.text("0123456789abcdef", min_size=64, max_size=64)
words = st.text(max_size=40)
times = st.floats(0, 4e9)
unit = st.floats(0, 1)


scan_headers = st.builds(
    ScanHeaders,
    study_instance_uid=uids,
    series_instance_uid=uids,
    sop_instance_uid=uids,
    sop_class_uid=uids,
    transfer_syntax_uid=uids,
    digest=hexes,
    pixel_digest=hexes,
    source=words,
    received_at=times,
    traceparent=words,
    size_bytes=st.integers(0, 2**40),
    frames=st.integers(1, 5000),
    lane=st.sampled_from(Lane),
    claim=words,
)
study = {"study_instance_uid": uids, "at": times}
image = {**study, "series_instance_uid": uids, "sop_instance_uid": uids, "pixel_digest": hexes}
measures = st.builds(Measure, probability=unit, threshold=unit, area_mm2=st.floats(0, 1e5))
patients = st.builds(Patient, name=words, patient_id=words)
offsets = st.integers(0, 2**60)
study_events: st.SearchStrategy[events.StudyEvent] = st.one_of(
    st.builds(events.Arrived, **image, sop_class_uid=uids, digest=hexes, patient=patients),
    st.builds(
        events.Scored,
        **image,
        model=st.just("m"),
        model_version=st.just("1"),
        measures=st.dictionaries(st.sampled_from(Label), measures),
        position_mm=st.floats(-1e4, 1e4),
        thickness_mm=st.floats(0.1, 20),
    ),
    st.builds(events.NotAnalysed, **image, reason=st.sampled_from(Reason)),
    st.builds(events.Closed, **study, after_offset=offsets),
    st.builds(events.Expired, **study, after_offset=offsets),
)


@given(scan_headers)
def test_scan_headers_survive_the_round_trip(headers: ScanHeaders) -> None:
    """Decoding what was encoded gives the same headers."""
    assert ScanHeaders.decode(headers.encode()) == headers


@given(scan_headers, st.data())
def test_scan_headers_with_one_missing_raise_the_decode_error(headers: ScanHeaders, data: st.DataObject) -> None:
    """A missing header is the one decode error, and it carries the bytes."""
    pairs = headers.encode()
    gone = data.draw(st.integers(0, len(pairs) - 1))
    with pytest.raises(DecodeError) as caught:
        ScanHeaders.decode(pairs[:gone] + pairs[gone + 1 :])
    assert caught.value.payload


def test_scan_headers_of_a_later_schema_are_refused() -> None:
    """A schema this version does not know is an error, never a guess."""
    pairs = ScanHeaders("1", "2", "3", "4", "5", "d", "p", "s", 1.0, "t", 1).encode()
    with pytest.raises(DecodeError, match="schema"):
        ScanHeaders.decode([("schema", b"2"), *pairs[1:]])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("received_at", "frames") for value in ("-1", "1e999", "nan", "9" * 30)),
        ("size_bytes", "-1"),
        ("frames", "0"),
    ],
)
def test_scan_headers_that_no_event_could_repeat_are_refused(name: str, value: str) -> None:
    """One with frames=-1 had scoring fail, three times, at making the image's event."""
    pairs = dict(ScanHeaders("1", "2", "3", "4", "5", "d", "p", "s", 1.0, "t", 1).encode()) | {name: value.encode()}
    with pytest.raises(DecodeError):
        ScanHeaders.decode(list(pairs.items()))


@given(study_events)
def test_study_events_survive_the_round_trip(event: events.StudyEvent) -> None:
    """Decoding what was encoded gives the same event."""
    assert events.decode(events.encode(event)) == event


@given(st.binary(max_size=200))
def test_junk_is_the_one_decode_error_and_carries_its_bytes(junk: bytes) -> None:
    """Whatever lies on the topic: an event or a DecodeError with the bytes, nothing else."""
    with pytest.raises(DecodeError) as caught:
        events.decode(junk)
    assert caught.value.payload == junk


@pytest.mark.parametrize("uid", ["", "1.2\n", "1.2|3", "Doe^John", "\u00e9", "1" * 65])
def test_a_study_that_is_no_uid_is_a_decode_error(uid: str) -> None:
    """It would become part of keys, partitions and names in Redis: neither an event nor a scan may carry it."""
    event = events.Closed(study_instance_uid="1.2.3", at=1.0, after_offset=0)
    with pytest.raises(DecodeError):
        events.decode(events.encode(event.model_copy(update={"study_instance_uid": uid})))
    with pytest.raises(DecodeError):
        ScanHeaders.decode(ScanHeaders(uid, "2", "3", "4", "5", "d", "p", "s", 1.0, "t", 1).encode())


@given(study_events)
def test_event_keys_begin_with_the_study_and_hold_no_patient_data(event: events.StudyEvent) -> None:
    """Keys route by study and may be seen by anybody who lists a topic."""
    key = event.key.decode()
    assert key.split("|")[:2] == [event.study_instance_uid, event.kind]
    assert set(key) <= set(string.digits + string.ascii_letters + "._|-")


@given(st.builds(events.Lost, at=times, partition=offsets, first=offsets, upto=offsets, topic=uids))
def test_what_left_a_topic_is_told_for_a_partition_and_names_no_study(event: events.Lost) -> None:
    """It survives the round trip, its key begins with no study, and who reads only studies gets the decode error."""
    assert events.decode_any(events.encode(event)) == event
    assert event.key.startswith(b"|lost|")
    with pytest.raises(DecodeError):
        events.decode(events.encode(event))


@given(study_events)
def test_who_reads_every_event_reads_those_of_studies_alike(event: events.StudyEvent) -> None:
    """One codec: the wider reader gives the same events."""
    assert events.decode_any(events.encode(event)) == event


def test_a_patient_does_not_print_itself() -> None:
    """A repr ends up in logs; so neither repr nor str shows a patient's data."""
    patient = Patient(name="DOE^JANE", patient_id="4711", birth_date="19700101")
    shown = f"{patient!r} {patient}"
    assert "DOE" not in shown
    assert "4711" not in shown


@given(uids, st.integers(1, 200))
def test_a_study_lives_in_one_partition(uid: str, partitions: int) -> None:
    """The partitioner is a function of the study alone, within the count."""
    assert partition_of(uid, partitions) == partition_of(uid, partitions)
    assert 0 <= partition_of(uid, partitions) < partitions


def test_the_partitioner_never_changes() -> None:
    """Records written by older versions must be found: the values are pinned."""
    assert [partition_of(uid, 24) for uid in ("1.2.3", "1.2.840.10008", "2.25.1")] == [PINNED[u] for u in PINNED]


PINNED = {"1.2.3": 2, "1.2.840.10008": 19, "2.25.1": 23}


def test_a_volume_of_nothing_is_unknown_and_not_zero() -> None:
    """0.0 ml beside a flag would look like a mistake; a segmentation that marked nothing has no size."""
    assert [volume_words(v) for v in (0.0, 0.04, 0.1, 13.96)] == ["size unknown", "< 0.1 ml", "0.1 ml", "14.0 ml"]


def test_names_share_one_prefix() -> None:
    """Two sites on one cluster never meet: every topic and key takes the prefix."""
    assert all(topic.startswith("a.") for topic in Topics("a.").all)
    keys = RedisKeys("a:")
    assert all(key.startswith("a:") for key in (keys.queue, keys.changes, keys.study("1"), keys.partition(0)))


def test_every_reason_has_a_category_and_a_sentence() -> None:
    """The closed list is complete."""
    assert set(SENTENCES) == set(Reason)
    assert {reason.category for reason in Reason} == set(Category)
    assert Reason.LOCALIZER.category is Category.EXCLUDED
    assert Reason.CONTENT_OUT_OF_SCOPE.category is Category.OUT_OF_SCOPE
    assert Reason.DISCARDED.category is Category.FAILED


def test_every_happening_has_a_metric_in_base_units() -> None:
    """Names are Prometheus names: one prefix, seconds and bytes, no ``_total`` of our own, help that ends."""
    assert set(METRICS) == set(Happening)
    for metric in (*METRICS.values(), STAGE_IN, STAGE_OUT, STAGE_NOW, STAGE_SECONDS):
        assert metric.name.startswith("triage_")
        assert not metric.name.endswith(("_ms", "_total"))
        assert metric.help.endswith(".")
        assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets)
