"""When scoring may join its group."""

import pytest

from contracts.errors import PeerAway
from worker.scoring import kafka_in


class _Forgetful:
    """A consumer whose broker does not know one topic yet."""

    def __init__(self, known: set[str]) -> None:
        self._known = known

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return {0} if topic in self._known else None


def test_the_group_is_not_joined_before_both_topics_are_known() -> None:
    """A group that is formed earlier gets no partitions and scores nothing: the peer counts as away until then."""
    topics = ("scans.stat", "scans.routine")
    with pytest.raises(PeerAway):
        kafka_in._topics_known(_Forgetful({"scans.stat"}), topics)
    kafka_in._topics_known(_Forgetful(set(topics)), topics)
