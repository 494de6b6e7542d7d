"""The watchdog over a consumer's progress: pure, with a clock that the test moves."""

from hypothesis import given
from hypothesis import strategies as st

from launch.clients.watchdog import WATCHDOG_S, Stuck, Watchdog


class Clock:
    """Seconds that move when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """The time now."""
        return self.now_s


def test_a_backlog_that_gives_nothing_for_the_patience_is_stuck() -> None:
    """A partition with records waiting and none delivered is stuck after the patience, not before."""
    clock = Clock()
    dog = Watchdog(30.0, clock)
    assert dog.stuck({"a": 5, "b": 0}) == frozenset()
    clock.now_s = 29.9
    assert dog.stuck({"a": 5, "b": 0}) == frozenset()
    clock.now_s = 30.0
    assert dog.stuck({"a": 5, "b": 0}) == {"a"}


def test_a_delivery_starts_the_patience_anew() -> None:
    """A slow partition is not a stuck one."""
    clock = Clock()
    dog = Watchdog(30.0, clock)
    dog.stuck({"a": 5})
    clock.now_s = 29.0
    dog.delivered(["a"])
    assert dog.stuck({"a": 4}) == frozenset()
    clock.now_s = 58.0
    assert dog.stuck({"a": 4}) == frozenset()
    clock.now_s = 59.0
    assert dog.stuck({"a": 4}) == {"a"}


def test_a_partition_that_was_paused_starts_anew() -> None:
    """The time in which a partition was paused or away does not count against it."""
    clock = Clock()
    dog = Watchdog(30.0, clock)
    dog.stuck({"a": 5})
    clock.now_s = 29.0
    dog.stuck({})
    clock.now_s = 31.0
    assert dog.stuck({"a": 5}) == frozenset()


@given(st.lists(st.tuples(st.floats(0.0, 10.0), st.sets(st.sampled_from("abc"))), max_size=40))
def test_whatever_delivers_at_every_look_is_never_stuck(looks: list[tuple[float, set[str]]]) -> None:
    """Property: only a partition silent at each look for the whole patience is named."""
    clock = Clock()
    dog = Watchdog(15.0, clock)
    silent_s = dict.fromkeys("abc", 0.0)
    dog.stuck(dict.fromkeys("abc", 1))
    for step_s, gave in looks:
        clock.now_s += step_s
        dog.delivered(gave)
        stuck = dog.stuck(dict.fromkeys("abc", 1))
        for name in "abc":
            silent_s[name] = clock.now_s if name in gave else silent_s[name]
        assert stuck == {name for name in "abc" if clock.now_s - silent_s[name] >= 15.0}


def test_a_hanging_consumer_is_told_once_and_the_next_one_starts_anew() -> None:
    """Beside a loop: stuck after the patience; whoever is opened in its place has all of that time again."""
    clock = Clock()
    consumers = {"old": {"a": 5}, "new": {"a": 5}}
    stuck = Stuck(consumers.__getitem__, clock)
    assert not stuck("old", [])
    clock.now_s = WATCHDOG_S
    assert not stuck("old", ["a"])
    clock.now_s = 2 * WATCHDOG_S
    assert stuck("old", [])
    assert not stuck("new", [])
    clock.now_s = 3 * WATCHDOG_S - 0.1
    assert not stuck("new", [])
    clock.now_s = 3 * WATCHDOG_S
    assert stuck("new", [])
