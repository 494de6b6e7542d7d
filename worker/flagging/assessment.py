"""What the service says of a study: flagged wins over not analysed, which wins over not flagged. Pure.

Nothing is silently normal (design decision 8): *not flagged* needs a closed study, at least one scored image, and no
image in scope that failed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from contracts.findings import Finding, StudyState, Urgency
from contracts.reasons import Category, Reason
from worker.flagging.verdict import urgency_of

_ORDER = {reason: place for place, reason in enumerate(Reason)}


@dataclass(frozen=True, slots=True)
class Standing:
    """What a study's images add up to, beside the findings.

    ``reasons``: of all images, each once. ``delayed``: the deadline passed and images still wait.
    """

    closed: bool
    delayed: bool
    scored_images: int
    reasons: frozenset[Reason]
    other_pixels: bool
    other_patient: bool


@dataclass(frozen=True, slots=True)
class Assessment:
    """The service's word on a study. ``provisional`` until the study is closed."""

    state: StudyState
    provisional: bool
    reason: Reason | None
    notes: tuple[Reason, ...]
    urgency: Urgency
    findings: tuple[Finding, ...]


def assess(findings: tuple[Finding, ...], standing: Standing) -> Assessment:
    """The rules, in order: flagged, not analysed, receiving, not flagged."""
    state, reason = _state(findings, standing)
    return Assessment(
        state=state,
        provisional=not standing.closed,
        reason=reason,
        notes=_notes(standing, reason),
        urgency=urgency_of(findings),
        findings=findings,
    )


def _state(findings: tuple[Finding, ...], standing: Standing) -> tuple[StudyState, Reason | None]:
    if findings:
        return (StudyState.FLAGGED, None)
    failed = _of(standing, Category.FAILED)
    if failed or standing.delayed:
        return (StudyState.NOT_ANALYSED, failed[0] if failed else Reason.DELAYED)
    if not standing.closed:
        return (StudyState.RECEIVING, None)
    if standing.scored_images:
        return (StudyState.NOT_FLAGGED, None)
    return (StudyState.NOT_ANALYSED, _why_nothing(standing))


def _why_nothing(standing: Standing) -> Reason:
    """One reason where all images agree; images that never count are asked only when there are no others."""
    reasons = _of(standing, Category.OUT_OF_SCOPE) or _of(standing, Category.EXCLUDED)
    return reasons[0] if len(reasons) == 1 else Reason.NOTHING_IN_SCOPE


def _notes(standing: Standing, reason: Reason | None) -> tuple[Reason, ...]:
    """What a reader should know beside the state."""
    told = set(_of(standing, Category.FAILED))
    if standing.scored_images:
        told |= set(_of(standing, Category.OUT_OF_SCOPE))
    if standing.delayed:
        told.add(Reason.DELAYED)
    if standing.other_pixels:
        told.add(Reason.SAME_UID_OTHER_PIXELS)
    if standing.other_patient:
        told.add(Reason.SAME_STUDY_OTHER_PATIENT)
    return _sorted(told - {reason})


def _of(standing: Standing, category: Category) -> tuple[Reason, ...]:
    return _sorted(reason for reason in standing.reasons if reason.category is category)


def _sorted(reasons: Iterable[Reason | None]) -> tuple[Reason, ...]:
    return tuple(sorted((reason for reason in reasons if reason is not None), key=_ORDER.__getitem__))
