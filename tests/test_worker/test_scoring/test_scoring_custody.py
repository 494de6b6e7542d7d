"""Custody: tickets fence what another owns now, resends wait for the image in work, the window is given back."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from contracts.names import Lane
from contracts.scans import Place
from contracts.settings import ScoringSettings
from worker.scoring.custody import NO_TICKET, Custody, Fetched

P = ("scans.routine", 0)
IMAGE = ("study", "sop", "digest")


def record(offset: int, partition: tuple[str, int] = P, lane: Lane = Lane.ROUTINE) -> Fetched:
    """A record of 100 bytes."""
    return Fetched(Place(*partition, offset), lane, b"study", (), b"x" * 100, float(offset))


def owning(*offsets: int) -> Custody:
    """A custody that owns one partition and has fetched those offsets."""
    custody = Custody(ScoringSettings())
    custody.assign([P])
    for offset in offsets:
        assert custody.add(record(offset))
    return custody


def take(custody: Custody) -> Fetched:
    """The next record; there is one."""
    taken = custody.take()
    assert taken is not None
    return taken


def test_a_settled_record_of_a_dropped_partition_commits_nothing() -> None:
    """A zombie's late result has no effect on the partition's next assignment, here or elsewhere."""
    custody = owning(0, 1)
    late = take(custody)
    custody.drop({P})
    custody.assign([P])
    assert not custody.settle(late)
    assert custody.committable() == {}
    assert custody.in_flight == (0, 0)


def test_a_record_that_is_dropped_wakes_the_worker_that_waits_on_its_peer() -> None:
    """``gone`` is how a worker learns that it may stop trying."""
    custody = owning(0)
    held = take(custody)
    assert not custody.gone(held, 0.0)
    custody.drop({P})
    assert custody.gone(held, 0.0)


def test_records_of_partitions_that_are_not_ours_are_not_taken() -> None:
    """A poll may still return what was fetched before a rebalance."""
    custody = owning()
    assert not custody.add(record(0, ("scans.routine", 1)))
    assert custody.in_flight == (0, 0)


def test_what_an_earlier_assignment_fetched_is_refused() -> None:
    """A batch is taken in after its partition went and came back: it would hide what lies between it and the commit."""
    custody = owning(0, 1)
    before = custody.tickets()[P]
    custody.drop({P})
    custody.assign([P])
    assert not custody.add(record(2), before)
    assert not custody.add(record(2), NO_TICKET)
    assert [custody.add(record(offset), custody.tickets()[P]) for offset in range(4)] == [True] * 4
    assert custody.committable() == {P: 0}


def test_a_resend_of_an_image_in_work_is_settled_with_it_and_scored_once() -> None:
    """Both offsets may be committed after one analysis."""
    custody = owning(0, 1)
    first, resend = take(custody), take(custody)
    assert custody.claim(IMAGE, first) is True
    assert custody.claim(IMAGE, resend) is None
    custody.settle(first)
    assert custody.unclaim(IMAGE, first, scored=True) == [resend]
    custody.settle(resend)
    assert custody.committable() == {P: 2}
    later = record(2)
    custody.add(later)
    assert custody.claim(IMAGE, take(custody)) is False


def test_a_resend_waiting_for_an_image_that_was_not_scored_is_worked_on_itself() -> None:
    """Only what was scored and acknowledged is a duplicate: a replayed dead letter must be tried again."""
    custody = owning(0, 1)
    first, resend = take(custody), take(custody)
    custody.claim(IMAGE, first)
    custody.claim(IMAGE, resend)
    custody.settle(first)
    assert custody.unclaim(IMAGE, first, scored=False) == []
    assert take(custody) is resend
    assert custody.claim(IMAGE, resend) is True


def test_closed_custody_leaves_what_waits_to_the_next_owner() -> None:
    """Draining: waiting records are not handed out and not committed; what is in work still settles."""
    custody = owning(0, 1)
    working = take(custody)
    custody.close()
    assert custody.take() is None
    assert not custody.add(record(2))
    assert custody.settle(working)
    assert custody.committable() == {P: 1}
    assert custody.idle(0.0)


def test_a_record_handed_back_is_neither_in_work_nor_settled() -> None:
    """Its next owner starts from it; handing it back again, or after it was settled, changes nothing."""
    custody = owning(0, 1)
    first, second = take(custody), take(custody)
    custody.settle(first)
    for held in (first, second, second):
        custody.hand_back(held)
    assert custody.idle(0.0)
    assert custody.in_flight == (0, 0)
    assert custody.committable() == {P: 1}


def test_resends_of_an_image_that_is_handed_back_go_with_it() -> None:
    """Nobody settles them any more: a drain must not wait for them, nor a worker take one up."""
    custody = owning(0, 1)
    first, resend = take(custody), take(custody)
    custody.claim(IMAGE, first)
    custody.claim(IMAGE, resend)
    custody.close()
    custody.unclaim(IMAGE, first, scored=False)
    custody.hand_back(first)
    assert custody.take() is None
    assert custody.idle(0.0)
    assert custody.in_flight == (0, 0)
    assert custody.committable() == {P: 0}


def test_the_age_told_is_that_of_the_oldest_unsettled_record() -> None:
    """Later records being settled does not make a partition look younger."""
    custody = owning(10, 20)
    first, second = take(custody), take(custody)
    custody.settle(second)
    assert custody.oldest_s(P) == 10.0
    assert custody.position(P) == 10
    custody.settle(first)
    assert custody.oldest_s(P) is None
    assert custody.position(P) == 21


class CustodyMachine(RuleBasedStateMachine):
    """Fetching, taking, settling, revoking and assigning in any order."""

    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.custody = Custody(ScoringSettings())
        self.partitions = [("scans.stat", 0), ("scans.routine", 0), ("scans.routine", 1)]
        self.fetched: dict[tuple[str, int], list[int]] = {}
        self.settled: dict[tuple[str, int], set[int]] = {}

    @rule(number=st.integers(0, 2))
    def assign(self, number: int) -> None:
        """A partition not owned becomes ours."""
        partition = self.partitions[number]
        if partition not in self.fetched:
            self.custody.assign([partition])
            self.fetched[partition], self.settled[partition] = [], set()

    @rule(number=st.integers(0, 2))
    def drop(self, number: int) -> None:
        """A partition becomes another's."""
        self.custody.drop({self.partitions[number]})
        self.fetched.pop(self.partitions[number], None)
        self.settled.pop(self.partitions[number], None)

    @rule(number=st.integers(0, 2), gap=st.integers(1, 3))
    def fetch(self, number: int, gap: int) -> None:
        """The next record of a partition comes."""
        partition = self.partitions[number]
        offsets = self.fetched.get(partition)
        offset = (offsets[-1] if offsets else 0) + gap
        lane = Lane.STAT if partition[0].endswith("stat") else Lane.ROUTINE
        assert self.custody.add(record(offset, partition, lane)) == (offsets is not None)
        if offsets is not None:
            offsets.append(offset)

    @rule(target=taken)
    def take(self) -> Fetched | None:
        """A worker takes a record."""
        return self.custody.take()

    @rule(held=taken)
    def settle(self, held: Fetched | None) -> None:
        """A worker is done, perhaps late, perhaps twice."""
        if held is not None and self.custody.settle(held):
            self.settled[held.partition].add(held.place.offset)

    @invariant()
    def commits_are_contiguous(self) -> None:
        """Nothing unsettled lies below an offset that may be committed."""
        for partition, offset in self.custody.committable().items():
            below = {fetched for fetched in self.fetched[partition] if fetched < offset}
            assert below <= self.settled[partition]

    @invariant()
    def window_holds_exactly_what_is_unsettled(self) -> None:
        """Room is given back once for each record, however it left."""
        unsettled = sum(len(set(found) - self.settled[p]) for p, found in self.fetched.items())
        assert self.custody.in_flight == (unsettled, 100 * unsettled)


TestCustodyMachine = CustodyMachine.TestCase
TestCustodyMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
