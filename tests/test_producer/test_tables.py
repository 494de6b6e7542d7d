"""Statuses, lanes and the two memories: decisions as tables."""

import threading

import pytest

from contracts.errors import SettingsError
from contracts.names import Lane
from contracts.reasons import Category, Reason
from contracts.scans import ScanHeaders
from contracts.settings import LaneRule, ProducerSettings
from producer.lanes import LaneFacts, Lanes
from producer.memory import Acknowledged, Budget
from producer.statuses import STATUS_OF, TEMPORARY, dicom_status, http_status

DEFAULT = Lanes(ProducerSettings().lane_rules)


def test_every_refusal_has_a_status() -> None:
    """The table covers the closed list of refusals, and nothing else."""
    assert set(STATUS_OF) == {reason for reason in Reason if reason.category is Category.REFUSED}


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (None, 0x0000),
        (Reason.BROKER_AWAY, 0xA700),
        (Reason.BUFFER_FULL, 0xA700),
        (Reason.STORE_AWAY, 0xA700),
        (Reason.UNPARSABLE, 0xC000),
        (Reason.MISSING_UIDS, 0xC000),
        (Reason.SOP_CLASS_MISMATCH, 0xA900),
        (Reason.SOP_INSTANCE_MISMATCH, 0xA900),
    ],
)
def test_outcome_has_the_status_of_the_standard(reason: Reason | None, status: int) -> None:
    """PS3.4 table B.2-1."""
    assert dicom_status(reason) == status


def test_success_is_told_for_stored_objects_only() -> None:
    """No reason shares the status of a stored object."""
    assert 0 not in STATUS_OF.values()


@pytest.mark.parametrize(
    ("reasons", "status"),
    [
        ([None, None], 200),
        ([None, Reason.UNPARSABLE], 202),
        ([None, Reason.BROKER_AWAY], 202),
        ([Reason.UNPARSABLE], 409),
        ([Reason.UNPARSABLE, Reason.BROKER_AWAY], 409),
        ([Reason.BROKER_AWAY, Reason.BUFFER_FULL], 503),
    ],
)
def test_http_status_follows_the_instances(reasons: list[Reason | None], status: int) -> None:
    """PS3.18 table 10.5.3-1; peers away are 503, so that the client comes back."""
    assert http_status(reasons) == status


def test_only_our_peers_faults_are_temporary() -> None:
    """An object that is itself at fault is not tried again."""
    assert {reason for reason in TEMPORARY if reason.value.endswith(("_away", "_full"))} == TEMPORARY


@pytest.mark.parametrize(
    ("facts", "lane"),
    [
        (LaneFacts(priority="high"), Lane.STAT),
        (LaneFacts(priority="medium"), Lane.ROUTINE),
        (LaneFacts(description="CT Head TRAUMA"), Lane.STAT),
        (LaneFacts(description="traumatology follow-up"), Lane.ROUTINE),
        (LaneFacts(), Lane.ROUTINE),
    ],
)
def test_default_rules_know_urgent_orders(facts: LaneFacts, lane: Lane) -> None:
    """High DIMSE priority, or a word of urgency in the description."""
    assert DEFAULT.choose(facts) is lane


def test_a_rule_holds_when_all_its_conditions_do_and_the_first_wins() -> None:
    """Conditions are joined by and, rules by order."""
    rules = Lanes((LaneRule(lane=Lane.ROUTINE, calling_ae="PLAN"), LaneRule(calling_ae="ER", modality="CT")))
    assert rules.choose(LaneFacts(calling_ae="ER", modality="CT")) is Lane.STAT
    assert rules.choose(LaneFacts(calling_ae="ER", modality="MR")) is Lane.ROUTINE
    assert rules.choose(LaneFacts(calling_ae="PLAN", modality="CT")) is Lane.ROUTINE


def test_a_description_that_is_no_pattern_stops_the_start() -> None:
    """A wrong setting is a sentence, not a surprise at the first image."""
    with pytest.raises(SettingsError, match="regular expression"):
        Lanes((LaneRule(description="("),))


def headers(sop: str = "1.2", digest: str = "d", lane: Lane = Lane.ROUTINE) -> ScanHeaders:
    """Headers that differ where a test wants it."""
    return ScanHeaders("1", "1.1", sop, "1.9", "1.2.840.10008.1.2", digest, "p", "AE", 0.0, "", 10, lane=lane)


def test_acknowledged_knows_the_very_same_bytes_only() -> None:
    """Another digest is another object; the same image as stat goes out again, into the faster lane."""
    memory = Acknowledged()
    memory.remember(headers(), now_s=0)
    assert memory.knows(headers(), now_s=1)
    assert not memory.knows(headers(digest="e"), now_s=1)
    assert not memory.knows(headers(lane=Lane.STAT), now_s=1)


def test_acknowledged_is_bounded_in_number_and_time_and_can_be_emptied() -> None:
    """The oldest leave first, none is older than its time, and a lost broker empties it."""
    memory = Acknowledged(limit=2, keep_s=10)
    for number in range(3):
        memory.remember(headers(sop=f"1.{number}"), now_s=0)
    assert [memory.knows(headers(sop=f"1.{number}"), now_s=1) for number in range(3)] == [False, True, True]
    assert not memory.knows(headers(sop="1.2"), now_s=11)
    memory.forget()
    assert not memory.knows(headers(sop="1.1"), now_s=1)


def test_budget_is_never_overdrawn_by_many_at_once() -> None:
    """Whatever threads take and give, no more than the limit is out."""
    budget = Budget(100)
    highest: list[int] = []

    def work() -> None:
        for _ in range(500):
            if budget.take(30):
                highest.append(budget.held_bytes)
                budget.give(30)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(highest) <= 100
    assert budget.held_bytes == 0
