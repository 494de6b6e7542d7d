"""Storage commitment without the world: the data sets, the verdict, the record, the desk."""

from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as DicomSequence

from contracts.errors import DecodeError
from producer.commitment import (
    RETRY_FIRST_S,
    RETRY_LONGEST_S,
    FailureReason,
    Reference,
    Request,
    Verdict,
    Version,
    decide,
    retry_after_s,
)
from producer.commitment_desk import Desk
from producer.commitment_set import Refused, event_information, read_action
from producer.memory import Budget

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
ONE, TWO = Reference(CT, "1.2.3"), Reference(MR, "1.2.34")
UIDS = st.lists(st.integers(0, 10**9), min_size=2, max_size=6).map(lambda parts: ".".join(map(str, parts)))
REFERENCES = st.lists(st.builds(Reference, UIDS, UIDS), min_size=1, max_size=20, unique=True)
LIMIT = 100


def encoded(data: Dataset, *, implicit: bool, undefined: bool = False) -> bytes:
    """As pydicom writes it."""
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = implicit, True
    for element in data:
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined
    write_dataset(stream, data)
    return bytes(stream.getvalue())


def action(references: "list[Reference] | None" = None, transaction: str = "1.9.8") -> Dataset:
    """Action Information as a requestor writes it."""
    data = Dataset()
    data.TransactionUID = transaction
    data.ReferencedSOPSequence = DicomSequence([item(reference) for reference in references or [ONE]])
    return data


def item(reference: Reference) -> Dataset:
    """One item of ReferencedSOPSequence."""
    data = Dataset()
    data.ReferencedSOPClassUID, data.ReferencedSOPInstanceUID = reference.sop_class_uid, reference.sop_instance_uid
    return data


def status(data: bytes, *, implicit: bool = True, limit: int = LIMIT) -> int:
    """What a wrong request is answered."""
    with pytest.raises(Refused) as refusal:
        read_action(data, implicit=implicit, max_references=limit)
    return refusal.value.status


@settings(max_examples=60, deadline=None)
@given(references=REFERENCES, implicit=st.booleans(), undefined=st.booleans(), transaction=UIDS)
def test_what_pydicom_writes_is_read_whatever_the_encoding(
    references: list[Reference], *, implicit: bool, undefined: bool, transaction: str
) -> None:
    """Explicit or implicit VR, defined or undefined lengths: the same transaction and references, in order."""
    data = encoded(action(references, transaction), implicit=implicit, undefined=undefined)
    found = read_action(data, implicit=implicit, max_references=LIMIT)
    assert found == (transaction, tuple(references))


@settings(max_examples=60, deadline=None)
@given(
    committed=st.lists(st.builds(Reference, UIDS, UIDS)),
    failed=st.lists(st.builds(Reference, UIDS, UIDS)),
    implicit=st.booleans(),
)
def test_the_report_is_what_pydicom_reads(
    *, committed: list[Reference], failed: list[Reference], implicit: bool
) -> None:
    """Event type 1 without failures and 2 with them (PS3.4 J.3.3.1); an empty sequence is left out."""
    verdict = Verdict(tuple(committed), tuple((r, FailureReason.NO_SUCH_INSTANCE) for r in failed), 0)
    event_type, data = event_information("1.9.8", verdict, implicit=implicit)
    read = read_dataset(BytesIO(data), is_implicit_VR=implicit, is_little_endian=True)
    told = [(i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID) for i in read.get("ReferencedSOPSequence", ())]
    lost = [
        (i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID, i.FailureReason)
        for i in read.get("FailedSOPSequence", ())
    ]
    assert event_type == (2 if failed else 1)
    assert read.TransactionUID == "1.9.8"
    assert told == [(r.sop_class_uid, r.sop_instance_uid) for r in committed]
    assert lost == [(r.sop_class_uid, r.sop_instance_uid, 0x0112) for r in failed]
    assert [int(element.tag) for element in read] == sorted(int(element.tag) for element in read)
    assert ("ReferencedSOPSequence" in read, "FailedSOPSequence" in read) == (bool(committed), bool(failed))


def changed(**values: object) -> Dataset:
    """A good request with other values; None deletes."""
    data = action()
    for name, value in values.items():
        target = (
            data.ReferencedSOPSequence[0]
            if name.startswith("ReferencedSOP") and not name.endswith("Sequence")
            else data
        )
        if value is None:
            del target[name]
        else:
            setattr(target, name, value)
    return data


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (changed(TransactionUID=None), 0x0120),
        (changed(TransactionUID=""), 0x0121),
        (changed(ReferencedSOPSequence=None), 0x0120),
        (changed(ReferencedSOPSequence=[]), 0x0121),
        (changed(ReferencedSOPClassUID=None), 0x0120),
        (changed(ReferencedSOPInstanceUID=None), 0x0120),
        (changed(ReferencedSOPInstanceUID=""), 0x0121),
        (Dataset(), 0x0120),
    ],
    ids="transaction no-transaction sequence no-items class instance no-instance nothing".split(),
)
def test_a_request_that_lacks_something_is_told_so(data: Dataset, expected: int) -> None:
    """Missing attribute, missing attribute value (PS3.7 Annex C), in both encodings."""
    for implicit in (True, False):
        assert status(encoded(data, implicit=implicit), implicit=implicit) == expected


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrong", ["abc", "1.2/../3", "1." * 40 + "1", "1..2", "1.2.3\\1.2.4"])
def test_what_is_no_uid_is_an_invalid_value(wrong: str) -> None:
    """Letters, paths, more than 64 characters, several values: none becomes a key."""
    assert status(encoded(changed(TransactionUID=wrong), implicit=True)) == 0x0106
    assert status(encoded(changed(ReferencedSOPInstanceUID=wrong), implicit=True)) == 0x0106


def test_wrong_kinds_are_invalid_values() -> None:
    """A sequence where a UID belongs, a UID where the sequence belongs."""
    sequence_as_uid = bytes.fromhex("0800991155490600") + b"1.2.3\0"
    uid = bytes.fromhex("08009511") + b"UI\x06\0" + b"1.9.8\0"
    assert status(uid + sequence_as_uid, implicit=False) == 0x0106
    nested = bytes.fromhex("08005511") + b"SQ\0\0" + bytes(4)
    item_of_it = bytes.fromhex("feff00e0") + len(nested).to_bytes(4, "little") + nested
    sequence = bytes.fromhex("08009911") + b"SQ\0\0" + len(item_of_it).to_bytes(4, "little") + item_of_it
    assert status(uid + sequence, implicit=False) == 0x0106


def test_more_references_than_are_taken_are_a_resource_limitation() -> None:
    """By count, and by size before anything is looked at."""
    many = [Reference(CT, f"1.2.{n}") for n in range(11)]
    assert status(encoded(action(many), implicit=True), limit=10) == 0x0213
    assert read_action(encoded(action(many[:10]), implicit=True), implicit=True, max_references=10)[1] == tuple(
        many[:10]
    )
    assert status(bytes(100_000), limit=10) == 0x0213


def test_depth_is_a_resource_limitation() -> None:
    """A private sequence nested a thousand deep is not followed."""
    data = b""
    for _ in range(300):
        nested = bytes.fromhex("feff00e0") + len(data).to_bytes(4, "little") + data
        data = bytes.fromhex("09001110") + b"SQ\0\0" + len(nested).to_bytes(4, "little") + nested
    assert status(data, implicit=False, limit=1000) == 0x0213


def test_the_same_reference_twice_is_one() -> None:
    """A requestor that repeats itself is answered once."""
    data = encoded(action([ONE, TWO, ONE]), implicit=True)
    assert read_action(data, implicit=True, max_references=LIMIT)[1] == (ONE, TWO)


def test_what_a_vendor_adds_to_an_item_is_passed_over() -> None:
    """A nested sequence with UIDs of its own does not become the reference."""
    inner = item(Reference(MR, "9.9.9"))
    outer = item(ONE)
    outer.ReferencedSeriesSequence = DicomSequence([inner])
    data = action()
    data.ReferencedSOPSequence = DicomSequence([outer])
    assert read_action(encoded(data, implicit=True), implicit=True, max_references=LIMIT)[1] == (ONE,)


def answered(refusal: Refused) -> None:
    """One of the statuses of the table."""
    assert refusal.status in (0x0110, 0x0120, 0x0121, 0x0106, 0x0213)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_broken_bytes_are_refused_or_read_and_nothing_else(data: st.DataObject) -> None:
    """Whatever is cut, flipped or put in: an answer, never another exception."""
    implicit = data.draw(st.booleans())
    good = bytearray(encoded(action([ONE, TWO]), implicit=implicit, undefined=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(good)))
        good[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=8))
    try:
        transaction, references = read_action(bytes(good), implicit=implicit, max_references=LIMIT)
    except Refused as refusal:
        answered(refusal)
    else:
        assert transaction
        assert references


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400), implicit=st.booleans())
def test_any_bytes_are_refused_or_read(*, data: bytes, implicit: bool) -> None:
    """As above, from nothing."""
    try:
        read_action(data, implicit=implicit, max_references=LIMIT)
    except Refused as refusal:
        answered(refusal)


# The verdict.


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ([Version(CT, durable=True)], None),
        ([], 0x0112),
        ([Version(MR, durable=True)], 0x0119),
        ([Version(CT, durable=False)], 0x0110),
        ([Version("", durable=False)], 0x0110),
        ([Version(CT, durable=True), Version(CT, durable=False)], 0x0110),
        ([Version(CT, durable=True), Version(CT, durable=True)], None),
        ([Version(CT, durable=True), Version(MR, durable=True)], 0x0119),
    ],
    ids="durable unknown other-class arrived-only outcome-only one-of-two both two-classes".split(),
)
def test_only_what_is_durable_is_committed(versions: list[Version], expected: int | None) -> None:
    """The table of the module: unknown, another class, not proven; every version counts."""
    verdict = decide([ONE], {ONE.sop_instance_uid: versions})
    assert verdict.committed == ((ONE,) if expected is None else ())
    assert [(reference, int(reason)) for reference, reason in verdict.failed] == ([(ONE, expected)] if expected else [])
    assert verdict.unsure == (expected == 0x0110)


@settings(max_examples=60, deadline=None)
@given(REFERENCES, st.data())
def test_every_reference_is_answered_once(references: list[Reference], data: st.DataObject) -> None:
    """Committed or failed, never both, never neither; and never committed without proof."""
    versions = st.lists(st.builds(Version, st.sampled_from(["", CT, MR]), st.booleans()), max_size=3)
    known = {r.sop_instance_uid: data.draw(versions) for r in references}
    verdict = decide(references, known)
    assert sorted([*verdict.committed, *(r for r, _ in verdict.failed)], key=str) == sorted(references, key=str)
    for reference in verdict.committed:
        assert known[reference.sop_instance_uid]
        assert all(version.durable for version in known[reference.sop_instance_uid])


# The record.


@settings(max_examples=60, deadline=None)
@given(REFERENCES, UIDS, st.floats(0, 4e9))
def test_a_request_survives_its_record(references: list[Reference], transaction: str, at: float) -> None:
    """Encoded and decoded it is the same; its key begins with the AE title."""
    request = Request("CT ONE", transaction, tuple(references), at)
    assert Request.decode(request.encode()) == request
    assert request.key == f"CT ONE|{transaction}".encode()


@pytest.mark.parametrize(
    "value", [b"", b"{}", b"[]", b'{"schema":2}', b"\xff", b'{"schema":1,"instances":[[9,"1"]],"classes":[]}']
)
def test_a_record_that_is_none_of_ours_carries_its_bytes(value: bytes) -> None:
    """DecodeError and nothing else."""
    with pytest.raises(DecodeError) as problem:
        Request.decode(value)
    assert problem.value.payload == value


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_retries_slow_down_to_a_limit(attempts: int) -> None:
    """Never sooner than at first, never later than the longest, never sooner than before."""
    assert RETRY_FIRST_S <= retry_after_s(attempts) <= retry_after_s(attempts + 1) <= RETRY_LONGEST_S


# The desk.


class Clock:
    """Stands still unless told."""

    now_s = 100.0

    def __call__(self) -> float:
        """Now."""
        return self.now_s


class Line:
    """A route that is open when the test says so."""

    def __init__(self) -> None:
        self.is_open = True

    def open(self) -> bool:
        """As said."""
        return self.is_open

    def report(self, information: object) -> None:
        """Nobody reports here."""
        raise AssertionError(information)


@pytest.fixture
def clock() -> Clock:
    """At 100 s."""
    return Clock()


@pytest.fixture
def desk(clock: Clock) -> Desk:
    """Settles for 1 s, holds 1,000 bytes, 600 of one address; partition 0 is ours and read."""
    desk = Desk(clock, 1.0, Budget(1000, 0.6))
    desk.began(0)
    desk.complete(0)
    return desk


def test_nothing_is_owed_before_the_partition_is_read_to_its_end(desk: Desk, clock: Clock) -> None:
    """A request whose tombstone is still to come is not reported again."""
    desk.began(1)
    desk.asked(1, b"A|1", 0, b"x", 50.0)
    clock.now_s += 10
    assert desk.take() is None
    desk.reported(1, b"A|1")
    desk.complete(1)
    assert desk.take() is None
    assert desk.owed() == []


def test_one_report_at_a_time_for_each_peer_and_none_before_it_settled(desk: Desk, clock: Clock) -> None:
    """Peers do not wait for each other, reports of one peer do; a requestor gets its moment to hang up."""
    for offset, key in enumerate((b"A|1", b"A|2", b"B|1")):
        desk.asked(0, key, offset, b"x", 50.0)
    assert desk.take() is None
    clock.now_s += 1
    first, second = desk.take(), desk.take()
    assert first
    assert second
    assert {first.peer, second.peer} == {"A", "B"}
    assert desk.take() is None
    desk.done(first)
    third = desk.take()
    assert third
    assert third.key == (b"A|2" if first.peer == "A" else b"A|1")


def test_a_partition_that_leaves_takes_what_is_owed_with_it(desk: Desk, clock: Clock) -> None:
    """Another producer reports; a straggler of the old ownership is not heard."""
    desk.asked(0, b"A|1", 0, b"x" * 900, 50.0)
    assert not desk.room.take(200)
    desk.left(0)
    desk.asked(0, b"A|2", 1, b"x", 50.0)
    clock.now_s += 10
    assert desk.take() is None
    assert desk.room.take(1000)
    assert desk.choose(5) == 5


def test_one_address_fills_its_share_and_no_more(desk: Desk) -> None:
    """Requests of a greedy peer end at its share; a modest one finds room, and what is reported makes room again."""
    desk.asked(0, b"G|1", 0, b"x" * 500, 50.0, "192.0.2.1")
    assert not desk.room.take(200, "192.0.2.1")
    assert desk.room.take(200, "192.0.2.2")
    desk.reported(0, b"G|1")
    assert desk.room.take(600, "192.0.2.1")


def test_what_others_took_is_held_even_over_the_share(desk: Desk, clock: Clock) -> None:
    """A partition that comes to us brings what is owed in it: none of it is dropped, and the address gets no more."""
    for number in range(3):
        desk.asked(0, b"G|%d" % number, number, b"x" * 500, 50.0, "192.0.2.1")
    assert len(desk.owed()) == 3
    assert not desk.room.take(1, "192.0.2.1")
    clock.now_s += 2.0
    assert desk.take() is not None


def test_a_request_goes_into_a_partition_of_ours(desk: Desk) -> None:
    """So that the one who has the association has the report."""
    assert desk.choose(7) == 0


def test_a_newer_request_of_the_same_key_is_not_ended_by_the_report_of_the_older(desk: Desk, clock: Clock) -> None:
    """Its record stays, and it is owed a report of its own."""
    desk.asked(0, b"A|1", 0, b"old", 50.0)
    clock.now_s += 1
    old = desk.take()
    assert old
    desk.asked(0, b"A|1", 1, b"new", 51.0)
    assert not desk.current(old)
    desk.done(old)
    clock.now_s += 1
    new = desk.take()
    assert new
    assert new.value == b"new"
    assert desk.current(new)


def test_a_route_counts_while_it_is_open(desk: Desk, clock: Clock) -> None:
    """And asking again on a new association makes a waiting report due."""
    route = Line()
    desk.came_on(b"A|1", route)
    desk.asked(0, b"A|1", 0, b"x", 50.0)
    clock.now_s += 1
    pending = desk.take()
    assert pending
    assert desk.route(pending) is route
    route.is_open = False
    assert desk.route(pending) is None
    desk.later(pending, 300.0, "nobody")
    assert desk.owed() == ["nobody"]
    other = Line()
    desk.came_on(b"A|1", other)
    clock.now_s += 1
    assert desk.take() is pending
    assert desk.route(pending) is other
