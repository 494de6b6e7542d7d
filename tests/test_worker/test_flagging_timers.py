"""Quiet period and deadline, by the broker's clock."""

from hypothesis import given
from hypothesis import strategies as st

from contracts.events import Closed, Expired
from contracts.settings import FlaggingSettings
from tests.test_worker.flagging_events import START_S, STUDY, arrived, logged, scored
from worker.flagging.study import Logged, Study
from worker.flagging.timers import BrokerClock, due

RULES = FlaggingSettings(quiet_s=10.0, deadline_s=300.0)


def study_of(*events: Logged) -> Study:
    """Folds a log."""
    study = Study(STUDY, RULES)
    for entry in events:
        study.apply(entry)
    return study


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 30)), min_size=1), st.floats(0, 100))
def test_the_broker_clock_is_never_ahead_of_the_broker(records: list[tuple[float, float]], later_s: float) -> None:
    """Records are seen some time after their append, never before: what the clock says is at most the true time."""
    clock = BrokerClock()
    for appended_s, on_the_way_s in records:
        clock.saw(START_S + appended_s, 50.0 + appended_s + on_the_way_s)
    seen_s = max(appended_s + on_the_way_s for appended_s, on_the_way_s in records)
    assert clock.now(50.0 + seen_s + later_s) <= START_S + seen_s + later_s + 1e-6


def test_a_clock_that_saw_nothing_makes_nothing_due() -> None:
    """An owner that has read nothing knows no time, and closes nothing."""
    study = study_of(*logged([arrived(0), scored(0)]))
    assert due([study], BrokerClock().now(1e9), 0.0, RULES) == []


def test_a_settled_study_closes_after_its_quiet_period_and_not_before() -> None:
    """Counted from the append of the last new image; a duplicate does not start it again."""
    study = study_of(*logged([arrived(0), scored(0), arrived(0)]))
    assert due([study], START_S + 9.9, 0.0, RULES) == []
    (event,) = due([study], START_S + 10.0, 0.0, RULES)
    assert isinstance(event, Closed)
    assert event.after_offset == 1


def test_an_unsettled_study_never_closes_and_expires_once() -> None:
    """Silence is no answer: past the deadline it is told as delayed, and not told again."""
    study = study_of(*logged([arrived(0), scored(0), arrived(1)]))
    assert due([study], START_S + 299.0, 0.0, RULES) == []
    (event,) = due([study], START_S + 301.0, 0.0, RULES)
    assert isinstance(event, Expired)
    study.apply(Logged(event, 3, START_S + 301.0))
    assert due([study], START_S + 9999.0, 0.0, RULES) == []


def test_a_closed_study_is_left_alone_until_a_late_image_comes() -> None:
    """Then its quiet period starts again."""
    study = study_of(*logged([arrived(0), scored(0), Closed(study_instance_uid=STUDY, at=0.0, after_offset=1)]))
    assert due([study], START_S + 9999.0, 0.0, RULES) == []
    for entry in logged([arrived(1), scored(1)], start=100):
        study.apply(entry)
    assert due([study], START_S + 19.9, 0.0, RULES) == []
    assert len(due([study], START_S + 20.0, 0.0, RULES)) == 1
