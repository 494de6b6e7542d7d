"""Rank and due time."""

from hypothesis import given
from hypothesis import strategies as st

from contracts.findings import Urgency
from contracts.settings import FlaggingSettings
from worker.flagging.ordering import CLOCK_TOLERANCE_S, arrival, due_at, rank

RULES = FlaggingSettings()
NOW_S = 1_800_000_000.0
HOUR_S = 3600.0
ages_s = st.floats(0, 6 * HOUR_S)
moments = st.floats(NOW_S - 10 * 86400, NOW_S)


@given(st.lists(ages_s, min_size=200, max_size=200))
def test_a_fresh_critical_flag_stands_first_among_200_routine_studies_up_to_six_hours_old(ages: list[float]) -> None:
    """A critical flag on a study that arrived just now is read before every routine study of a working day."""
    routine = [rank(NOW_S - age, Urgency.ROUTINE, RULES) for age in ages]
    assert rank(NOW_S, Urgency.CRITICAL, RULES) < min(routine)


@given(moments, moments, st.sampled_from(Urgency))
def test_nothing_is_overtaken_by_what_arrived_more_than_the_hard_maximum_later(
    early: float, late: float, urgency: Urgency
) -> None:
    """A routine study's wait for later arrivals is bounded by max_wait_s, whatever their urgency."""
    if rank(late, urgency, RULES) < rank(early, Urgency.ROUTINE, RULES):
        assert late - early <= RULES.max_wait_s


@given(moments, st.sampled_from(Urgency), st.fixed_dictionaries({u: st.floats(0, 86400) for u in Urgency}))
def test_a_flag_only_moves_forward_and_a_withdrawn_one_returns_to_its_routine_rank(
    arrived: float, urgency: Urgency, overtake: dict[Urgency, float]
) -> None:
    """Whatever allowances a site sets, no urgency ranks later than the study's own routine rank."""
    rules = FlaggingSettings(overtake_s=overtake)
    routine = rank(arrived, Urgency.ROUTINE, rules)
    assert rank(arrived, urgency, rules) <= routine == arrived + overtake[Urgency.ROUTINE]


def test_the_due_time_is_the_arrival_plus_the_sites_target_and_does_not_follow_the_rank() -> None:
    """Due time is a promise, not a place in the queue."""
    assert due_at(NOW_S, Urgency.CRITICAL, RULES) == NOW_S + 600.0
    assert due_at(NOW_S, Urgency.ROUTINE, RULES) == NOW_S + 86400.0


def test_a_producers_wrong_clock_cannot_move_a_study() -> None:
    """An arrival told hours before its append counts from the append; one within tolerance is believed."""
    assert arrival(NOW_S - 10 * HOUR_S, NOW_S) == NOW_S
    assert arrival(NOW_S + 10 * HOUR_S, NOW_S) == NOW_S
    assert arrival(NOW_S - CLOCK_TOLERANCE_S / 2, NOW_S) == NOW_S - CLOCK_TOLERANCE_S / 2
