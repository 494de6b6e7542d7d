"""Checkpoint, draining, window, breaker, memory: the rules that decide what may be committed and who comes first."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from contracts.names import Lane
from worker.scoring.breaker import Breaker
from worker.scoring.checkpoint import Checkpoint
from worker.scoring.draining import Lanes, Turns
from worker.scoring.memory import Memory
from worker.scoring.window import ROUTINE_SHARE, Window

OFFSETS = st.lists(st.integers(0, 10_000), min_size=1, max_size=60, unique=True).map(sorted)


@given(OFFSETS, st.randoms(use_true_random=False), st.integers(0, 60))
def test_commit_never_passes_an_unsettled_record(offsets: list[int], random: object, settle: int) -> None:
    """Whatever the order of settling, every record below the committable offset is settled."""
    checkpoint = Checkpoint()
    for offset in offsets:
        checkpoint.fetched(offset)
    order = offsets.copy()
    random.shuffle(order)  # type: ignore[attr-defined]  # hypothesis hands out a Random
    settled = set(order[:settle])
    for offset in order[:settle]:
        checkpoint.settled(offset)
    committable = checkpoint.committable
    assert committable is not None
    assert all(offset in settled for offset in offsets if offset < committable)
    if settled != set(offsets):
        assert committable == min(set(offsets) - settled)


@given(OFFSETS)
def test_all_settled_commits_one_beyond_the_last(offsets: list[int]) -> None:
    """When everything is settled the commit names the next offset to read, gaps or not."""
    checkpoint = Checkpoint()
    for offset in offsets:
        checkpoint.fetched(offset)
    for offset in reversed(offsets):
        checkpoint.settled(offset)
    assert checkpoint.committable == offsets[-1] + 1
    assert len(checkpoint) == 0


@given(OFFSETS, st.lists(st.integers(0, 10_000), max_size=60))
def test_commit_never_goes_back(offsets: list[int], settled: list[int]) -> None:
    """Fetching and settling, in any mixture, never lower the committable offset."""
    checkpoint, last = Checkpoint(), -1
    for step, offset in enumerate(offsets):
        checkpoint.fetched(offset)
        for old in settled[step : step + 1]:
            checkpoint.settled(old)
        committable = checkpoint.committable
        assert committable is not None
        assert committable >= last
        last = committable


def test_a_record_fetched_twice_is_taken_once() -> None:
    """After a seek back the same offset comes again; it is already in custody or settled."""
    checkpoint = Checkpoint()
    assert checkpoint.fetched(5)
    assert not checkpoint.fetched(5)
    checkpoint.settled(5)
    assert not checkpoint.fetched(4)
    assert checkpoint.committable == 6


def test_nothing_fetched_commits_nothing() -> None:
    """Before the first record there is nothing to say."""
    assert Checkpoint().committable is None


@given(st.integers(1, 20), st.integers(1, 400))
def test_while_both_wait_routine_gets_its_share_and_stat_the_rest(weight: int, turns: int) -> None:
    """Of every weight + 1 turns exactly one is routine's, and it comes last."""
    rule = Turns(weight)
    chosen = [rule.choose(stat=True, routine=True) for _ in range(turns)]
    expected = [Lane.ROUTINE if (n + 1) % (weight + 1) == 0 else Lane.STAT for n in range(turns)]
    assert chosen == expected


@given(st.lists(st.sampled_from(list(Lane)), max_size=100), st.integers(1, 8))
def test_draining_loses_nothing_and_keeps_the_order_within_a_lane(lanes: list[Lane], weight: int) -> None:
    """Everything put in comes out once, first come first served in its lane."""
    waiting: Lanes[tuple[Lane, int]] = Lanes(weight)
    for number, lane in enumerate(lanes):
        waiting.put(lane, (lane, number))
    taken = []
    while (item := waiting.take()) is not None:
        taken.append(item)
    assert Counter(taken) == Counter(zip(lanes, range(len(lanes)), strict=True))
    for lane in Lane:
        numbers = [number for of, number in taken if of is lane]
        assert numbers == sorted(numbers)


def test_a_stat_scan_overtakes_waiting_routine_scans() -> None:
    """One stat scan behind a hundred routine ones is taken next."""
    waiting: Lanes[str] = Lanes(8)
    for number in range(100):
        waiting.put(Lane.ROUTINE, f"routine {number}")
    waiting.put(Lane.STAT, "stat")
    assert waiting.take() == "stat"
    assert waiting.take() == "routine 0"


@given(
    st.integers(1, 64),
    st.lists(st.integers(0, 2_000_000), min_size=1, max_size=64),
    st.lists(st.sampled_from(Lane), max_size=20),
)
def test_window_never_takes_more_bytes_than_its_limit_of_records_like_those_before(
    images: int, sizes: list[int], lanes: list[Lane]
) -> None:
    """A poll gives a number of records, so the number must be right by bytes; one record always fits by itself."""
    limit = 1_000_000
    window = Window(images, limit)
    window.add(Lane.STAT, max(sizes))  # the largest has been seen
    window.remove(Lane.STAT, max(sizes))
    for lane in lanes:
        for size in sizes[: window.room(lane)]:
            window.add(lane, size)
    assert window.size_bytes <= limit or window.images == 1


@given(st.integers(1, 100), st.lists(st.integers(0, 500), max_size=100))
def test_window_never_takes_more_images_than_its_limit(images: int, sizes: list[int]) -> None:
    """Filled only while it says there is room, it holds at most its images; routine leaves a share to stat."""
    window = Window(images, 1_000_000)
    for size in sizes:
        if window.room(Lane.ROUTINE):
            window.add(Lane.ROUTINE, size)
    assert window.images <= max(1, int(images * ROUTINE_SHARE))
    for size in sizes:
        if window.room(Lane.STAT):
            window.add(Lane.STAT, size)
    assert window.images <= images


@given(st.integers(2, 100), st.sampled_from(Lane))
def test_a_lane_that_never_ends_leaves_room_to_the_other(images: int, lane: Lane) -> None:
    """Stat that filled the whole window kept routine from being fetched at all, so its turn never came."""
    window = Window(images, 1 << 30)
    (other,) = set(Lane) - {lane}
    while window.room(lane):
        window.add(lane, 0)
    assert window.room(other) >= 1


def test_one_record_larger_than_the_window_is_still_taken_alone() -> None:
    """Otherwise it would block its partition for ever."""
    window = Window(8, 100)
    assert window.room(Lane.ROUTINE)
    window.add(Lane.ROUTINE, 5_000)
    assert window.room(Lane.STAT) == 0
    window.remove(Lane.ROUTINE, 5_000)
    assert window.room(Lane.ROUTINE)


def test_breaker_opens_after_failures_in_a_row_and_one_probe_closes_it() -> None:
    """Closed, open, half open with a single probe, closed."""
    breaker = Breaker(failures=3, open_s=10.0)
    for second in range(2):
        breaker.failed(second)
    breaker.succeeded()
    for second in range(3):
        assert breaker.allows(second)
        breaker.failed(second)
    assert not breaker.allows(5.0)
    assert breaker.allows(12.5)
    assert not breaker.allows(12.6), "one probe at a time"
    breaker.succeeded()
    assert breaker.allows(12.7)
    assert not breaker.is_open


def test_a_failed_probe_opens_the_breaker_anew() -> None:
    """The wait begins again at the probe's failure."""
    breaker = Breaker(failures=1, open_s=10.0)
    breaker.failed(0.0)
    assert breaker.allows(10.0)
    breaker.failed(10.5)
    assert not breaker.allows(20.0)
    assert breaker.allows(20.5)


def test_a_probe_that_never_reports_back_does_not_close_the_way_for_ever() -> None:
    """A worker that gave up in the middle of a probe frees the place after the open time."""
    breaker = Breaker(failures=1, open_s=10.0)
    breaker.failed(0.0)
    assert breaker.allows(10.0)
    assert breaker.allows(20.0)


@given(st.integers(1, 10), st.lists(st.integers(0, 30), max_size=100))
def test_memory_keeps_the_last_images_of_each_partition(size: int, numbers: list[int]) -> None:
    """The last ``size`` distinct images are known, older ones are not; another partition's never are."""
    memory = Memory(size)
    for number in numbers:
        memory.remember(1, ("study", str(number), "digest"))
    latest = list(dict.fromkeys(reversed(numbers)))
    for rank, number in enumerate(latest):
        assert memory.knows(1, ("study", str(number), "digest")) == (rank < size)
        assert not memory.knows(2, ("study", str(number), "digest"))
    memory.forget(1)
    assert not any(memory.knows(1, ("study", str(number), "digest")) for number in numbers)
