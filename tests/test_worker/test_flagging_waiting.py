"""How far analysis is behind, kept as images come and settle."""

from hypothesis import given
from hypothesis import strategies as st

from contracts.names import Lane
from contracts.settings import FlaggingSettings
from contracts.worklist import Backlog
from tests.test_worker.flagging_events import STUDY, arrived, scored
from worker.flagging.view import PartitionFold, Raw, Taken
from worker.flagging.waiting import Key, Waiting

KEYS = [("1.2", str(n)) for n in range(6)]
STEPS = st.lists(
    st.tuples(st.sampled_from(KEYS), st.one_of(st.none(), st.tuples(st.sampled_from(Lane), st.floats(0, 1000)))),
    max_size=400,
)


@given(STEPS)
def test_counts_and_oldest_are_those_of_a_plain_list(steps: list[tuple[Key, tuple[Lane, float] | None]]) -> None:
    """Whatever comes, settles, comes again or moves: the same as looking at all of them."""
    waiting, plain = Waiting(), dict[Key, tuple[Lane, float]]()
    for key, since in steps:
        if since is None:
            waiting.drop(key)
            plain.pop(key, None)
        else:
            waiting.put(key, *since)
            plain[key] = since
        for lane in Lane:
            assert waiting.oldest(lane) == min((at for of, at in plain.values() if of is lane), default=None)
    assert len(waiting) == len(plain)
    told = waiting.backlog(2000.0)
    assert told.images == sum(lane.images for lane in told.lanes.values()) == len(plain)
    assert told.oldest_s == max((2000.0 - at for _, at in plain.values()), default=None)


def test_one_that_waits_for_ever_does_not_make_the_others_pile_up() -> None:
    """Memory follows what waits, not what ever waited."""
    waiting = Waiting()
    waiting.put(("1", "first"), Lane.ROUTINE, 0.0)
    for n in range(10_000):
        waiting.put(("1", str(n)), Lane.ROUTINE, float(n + 1))
        waiting.drop(("1", str(n)))
    assert len(waiting._heaps[Lane.ROUTINE]) < 200
    assert waiting.oldest(Lane.ROUTINE) == 0.0


def test_the_fold_tells_what_waits_of_studies_it_reads_and_of_studies_it_takes_up() -> None:
    """Arrivals add, outcomes take away; whoever takes the partition over counts the same."""
    rules = FlaggingSettings()
    fold = PartitionFold(Taken(0, "me", 0, 1, inherits=False), rules, 0)
    events = [arrived(0), arrived(1), arrived(2), scored(1), scored(1), arrived(0)]
    raws = [Raw(n, 1e9 + n, event.key, event.model_dump_json().encode()) for n, event in enumerate(events)]
    readings = fold.readings(raws)
    fold.take_up(STUDY, None)
    fold.fold(readings, len(raws))
    assert fold.waiting.backlog(1e9 + 10).images == 2
    assert fold.waiting.oldest(Lane.ROUTINE) == 1e9
    assert fold.waiting.oldest(Lane.STAT) is None
    other = PartitionFold(Taken(0, "next", 6, 1, inherits=False), rules, 6)
    other.take_up(STUDY, fold.studies[STUDY])
    assert other.waiting.backlog(1e9 + 10) == fold.waiting.backlog(1e9 + 10)
    assert Waiting().backlog(5.0) == Backlog(lanes=Waiting().backlog(5.0).lanes)
