"""How far an answer can be trusted (pure): from what the partitions' owners report.

A rebuilding or silent owner is never hidden behind an ``ok``; a fresh install is ok only once every partition reports.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.worklist import PartitionStatus, QueueStatus
from worklist.view import PartitionView


@dataclass(frozen=True, slots=True)
class Standing:
    """The status and, where it is not ok, a sentence why."""

    status: QueueStatus
    detail: str = ""


def standing(partitions: Sequence[PartitionView], count: int, stale_s: float) -> Standing:
    """Silent owners first: nothing moves there; then what is missing, being rebuilt, not confirmed by its owner, late.

    ``count`` is the one partition count of every topic. A status that is not known here is not ready.
    """
    silent = [p.number for p in partitions if p.silent_s > stale_s]
    missing = sorted(set(range(count)) - {p.number for p in partitions})
    rebuilding = [p.number for p in partitions if p.status != PartitionStatus.READY]
    behind = [p.number for p in partitions if p.behind_s > stale_s]
    unseen = [p.number for p in partitions if not p.seen]
    if silent:
        detail = f"No worker keeps the queue current: {_named(silent)} silent for more than {stale_s:g} s."
        return Standing(QueueStatus.DEGRADED, detail)
    if missing:
        return Standing(QueueStatus.REBUILDING, f"No worker has reported yet: {_named(missing)}.")
    if rebuilding:
        return Standing(QueueStatus.REBUILDING, f"The queue is being rebuilt: {_named(rebuilding)}.")
    if unseen:
        detail = f"The queue's store was restarted or dropped something; not looked over yet: {_named(unseen)}."
        return Standing(QueueStatus.REBUILDING, detail)
    if behind:
        late_s = max(p.behind_s for p in partitions)
        detail = f"Results come in late: {_named(behind)} shows what was known {late_s:.0f} s ago."
        return Standing(QueueStatus.DEGRADED, detail)
    return Standing(QueueStatus.OK)


def _named(numbers: Sequence[int]) -> str:
    word = "partition" if len(numbers) == 1 else "partitions"
    return f"{word} {', '.join(str(n) for n in sorted(numbers))}"
