"""The card's words follow from the figures and from what the model says of itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from training.data.study import Facts
from training.evaluation.account import notice, section, unlabelled
from training.evaluation.card import DEPENDENT, LIMITS, MASK, SYNTHETIC_LIMITS, card
from training.evaluation.judging import Case, Judged, Lesion
from training.evaluation.tiers import Outcome
from training.evaluation.training_report import without_nan
from training.evaluation.weakness import SAY, why

HOSTS = "synthetic bleeds, in phantoms and in 24 real slices without any (CPAISD, CC BY 4.0)"


def told(
    nth: int, score: float, kinds: Sequence[str] = (), *, scanner: str = "soft", refused: Sequence[bool] = (False, True)
) -> Judged:
    """A study of two slices, the second refused; a lesion of 4 ml of each kind, marked where the first one speaks."""
    lesions = tuple(Lesion(kind, 4.0, 60.0, np.empty(0, np.intp)) for kind in kinds)
    labels = np.tile(np.float32(bool(kinds)), (2, 6))
    case = Case(f"{nth}", f"{nth}", bool(kinds), labels, lesions, Facts(scanner=scanner), (5.0, 1.0, 1.0))
    probabilities = np.array([[score] + [0.0] * 5, [0.0] * 6])
    marked = tuple(np.array([2.0, 0.0]) for _ in kinds)
    areas = np.array([100.0, 0.0])
    return Judged(case, probabilities, score, 0.4 if kinds else None, marked, areas, areas, np.array(refused))


CASES = [
    *(told(nth, 0.9, ("mass",)) for nth in range(6)),
    *(told(10 + nth, 0.1, ("subarachnoid",)) for nth in range(6)),
    *(told(20 + nth, 0.1) for nth in range(6)),
    *(told(30 + nth, 0.8, scanner="sharp") for nth in range(6)),
]


def account(trained_on: str = "synthetic", **changed: Any) -> dict[str, Any]:
    """As `triage evaluate` makes it."""
    run = {"model": "m", "command": "triage evaluate", "date": "2026-01-01", "sha256": "0" * 64, "commit": "c"}
    outcome = Outcome(judged={"network": CASES})
    made = {
        "notice": notice(trained_on),
        "run": {**run, "trained_on": trained_on, "brain_mask": True, **changed},
        "thresholds": {"any": 0.5},
        "S": section(outcome, "network", 0.5),
        "R": {"ge_head": unlabelled(outcome, "network", 0.5)},
        "L": None,
        "realism": None,
    }
    return without_nan(made)


def test_each_missed_aim_says_why_from_the_figures() -> None:
    """Named are the kind that is missed, the studies raised in vain, the point that would have kept the budget."""
    text = card(account())
    assert "Below its aim: lesion_recall_2ml is 0.500, aimed at ≥ 0.9. Of 12 lesions from 2 ml up 6 are missed" in text
    assert "kind: subarachnoid (6 of 6)" in text
    assert "Studies without a lesion are flagged most where scanner is sharp (1.00 of 6)." in text
    assert "Studies with subarachnoid are flagged least: 0.00 of 6." in text
    assert "the budget would need 0.8" in text
    assert "hardly marked or not at all" in text


def test_no_cause_is_made_up_where_groups_are_small() -> None:
    """Of a handful of studies the card says that it does not know."""
    told_small = section(Outcome(judged={"network": [CASES[0], CASES[-1]]}), "network", 0.95)
    told_small["lesions"] = {name: [] for name in told_small["lesions"]}
    assert {why(figure, without_nan(told_small)) for figure in ("study_auc", "dice")} == {
        "The figures do not tell why: too few cases in any group."
    }


def test_every_aim_has_a_reason_to_give() -> None:
    """A figure with an aim and without words would end the report."""
    assert {row["figure"] for row in account()["S"]["aims"]} == set(SAY)


@pytest.mark.parametrize("trained_on", ["synthetic", HOSTS])
def test_a_model_that_learned_no_real_bleed_says_so(trained_on: str) -> None:
    """Drawn bleeds only, calibrated on phantoms; hosts and licence are told whole."""
    text = card(account(trained_on))
    assert all(line in text for line in (*SYNTHETIC_LIMITS, *LIMITS))
    assert notice(trained_on).startswith("Not for diagnosis; trained on synthetic")
    assert trained_on == "synthetic" or f"| training data | {trained_on} (" in text


@pytest.mark.parametrize(("trained_on", "word"), [("RSNA ICH 2019", "trained on RSNA ICH 2019"), ("", "is not said")])
def test_a_model_of_somebody_elses_says_what_it_says(trained_on: str, word: str) -> None:
    """Nothing of our phantoms is claimed of it."""
    text = card(account(trained_on))
    assert f"Not for diagnosis; {word}." in text or word in notice(trained_on)
    assert not any(line in text for line in SYNTHETIC_LIMITS)
    assert "synthetic data" not in notice(trained_on)


@pytest.mark.parametrize("asked", [True, False])
def test_the_card_says_whether_the_brain_mask_was_asked_and_what_was_refused(*, asked: bool) -> None:
    """Refused slices are counted, those with a lesion apart; tier R says that a scan we looked at proves little."""
    text = card(account(brain_mask=asked))
    assert MASK[asked] in text
    assert MASK[not asked] not in text
    assert "24 slices were refused, 12 of them with a lesion." in text
    assert "| ge_head | network | 24 | 12 | 48 | 24 | 12 |" in text
    assert DEPENDENT in text


def test_marks_outside_the_head_are_told_apart_on_real_scans() -> None:
    """Millilitres inside and outside, of slices that speak."""
    (one,) = unlabelled(Outcome(judged={"network": CASES[:1]}), "network", 0.5)["readers"].values()
    assert one["marked_ml"] == one["outside_ml"] == pytest.approx(0.5)
