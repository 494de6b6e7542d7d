"""Rank and due time: two things (design decision 7). Pure; times are epoch seconds.

Rank decides the reading order: the study's arrival plus its urgency class's overtake allowance. A class's allowance
says how much earlier a routine-most study may have arrived and still be overtaken, so nothing is overtaken by a
study that arrived later than the largest allowance, which the settings keep within ``max_wait_s``. Due time is a
promise of the site to itself: it marks what is overdue and never moves a study.
"""

from contracts.findings import Urgency
from contracts.settings import FlaggingSettings

# A producer's clock may differ from the broker's by the time an append takes, and by honest drift. Beyond that it is
# wrong, and the broker's time counts: a study must not jump the queue because a gateway's clock is hours behind.
CLOCK_TOLERANCE_S = 120.0


def rank(arrived_at: float, urgency: Urgency, rules: FlaggingSettings) -> float:
    """The place in the reading order: smaller is read first. Never later than the study's own routine rank."""
    allowances = rules.overtake_s
    return arrived_at + min(allowances[urgency], allowances[Urgency.ROUTINE])


def due_at(arrived_at: float, urgency: Urgency, rules: FlaggingSettings) -> float:
    """When the study should be read: its arrival plus the site's reading target."""
    return arrived_at + rules.reading_target_s[urgency]


def arrival(told_at: float, appended_at: float) -> float:
    """The moment an image arrived: the producer's word if the broker's clock bears it out, else the broker's."""
    return told_at if abs(told_at - appended_at) <= CLOCK_TOLERANCE_S else appended_at
