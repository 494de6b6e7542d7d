"""A partition that goes and comes back while the client is asked for records: each is settled, none is left out."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition

from contracts.hooks import Silent
from contracts.names import Lane
from contracts.settings import ScoringSettings
from worker.scoring.backlog_in import Broker
from worker.scoring.custody import Custody
from worker.scoring.polling_in import Polling

TP = TopicPartition("scans.routine", 0)
RECORDS = 8


@dataclass
class _Consumer:
    """A client of one partition that hands out three records at a time. At the ``third`` poll it loses its partition
    and gets it back, from the commit: ``before`` or after it has taken what it hands out.
    """

    custody: Custody
    before: bool
    commit: int | None = None
    position: int = 0
    polls: int = 0
    third: int = field(default=3, repr=False)

    def poll(self, **_: Any) -> dict[TopicPartition, list[Any]]:
        """See kafka-python."""
        self.polls += 1
        if self.polls == self.third and self.before:
            self._again()
        batch = [_record(offset) for offset in range(self.position, min(self.position + 3, RECORDS))]
        self.position += len(batch)
        if self.polls == self.third and not self.before:
            self._again()
        return {TP: batch} if batch else {}

    def _again(self) -> None:
        self.custody.drop({tuple(TP)})
        self.custody.assign([tuple(TP)])
        self.position = self.commit or 0

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """See kafka-python."""
        assert tp == TP
        self.position = offset

    def committed(self, tp: TopicPartition, timeout_ms: int) -> int | None:
        """See kafka-python."""
        assert (tp, timeout_ms > 0) == (TP, True)
        return self.commit

    def assignment(self) -> set[TopicPartition]:
        """See kafka-python."""
        return {TP}

    def paused(self) -> set[TopicPartition]:
        """See kafka-python."""
        return set()

    def pause(self, *_: TopicPartition) -> None:
        """See kafka-python."""

    resume = pause


def _record(offset: int) -> Any:
    return SimpleNamespace(
        topic=TP.topic, partition=0, offset=offset, key=b"1.2", headers=[], value=b"x", timestamp=1000
    )


@pytest.fixture
def no_broker() -> Broker:
    """One that nothing needs to be asked; its watchdog sees nothing."""
    nothing: Any = SimpleNamespace(delivered=lambda _: None, stuck=lambda _: frozenset())
    unasked: Any = None
    return Broker(unasked, lambda *_: 0, lambda _: {}, lambda: nothing, unasked, unasked, 1.0)


@pytest.mark.parametrize("before", [True, False], ids=["before it hands out", "after"])
@pytest.mark.parametrize("commit", [None, 2])
def test_no_record_is_left_out_when_its_partition_came_back_within_a_poll(
    no_broker: Broker, monkeypatch: pytest.MonkeyPatch, *, before: bool, commit: int | None
) -> None:
    """Handed out before, it must not hide what is read again; handed out after, it must not be lost with it."""
    for module in ("polling_in", "backlog_in"):  # by a clock that stands nothing is measured or committed
        monkeypatch.setattr(f"worker.scoring.{module}.time", SimpleNamespace(monotonic=lambda: 0.0))
    custody = Custody(ScoringSettings())
    custody.assign([tuple(TP)])
    consumer = _Consumer(custody, before)
    polling = Polling(no_broker, consumer, {TP.topic: Lane.ROUTINE}, custody, Silent())
    polling.turn(hold_off=False)
    consumer.commit = commit
    settled: set[int] = set(range(commit or 0))
    for _ in range(6):
        polling.turn(hold_off=False)
        if consumer.polls >= consumer.third:
            settled |= _settle(custody)
    assert settled == set(range(RECORDS))
    assert custody.committable() == {tuple(TP): RECORDS}


def _settle(custody: Custody) -> set[int]:
    """Everything that waits for a worker."""
    done = set()
    while record := custody.take():
        assert custody.settle(record)
        done.add(record.place.offset)
    return done
