"""The report: one HTML page that needs nothing else. Pure: the account and the plots in, text out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from training.evaluation import plots
from training.evaluation.account import KEYS, MEANING, small
from training.evaluation.card import DEPENDENT
from training.evaluation.tiers import Outcome

TITLES = {"S": "synthetic, held out", "L": "real and labelled"}
SHIFT_KEYS = ("study_auc", "image_auc", "sensitivity", "false_study_rate", "dice")
FGSM = (
    "The adversary is FGSM: every pixel of tissue moves by at most so many HU along the sign of the gradient of the"
    " served graph itself, against the truth, on every slice."
)
RANDOM = (
    "This graph could not be followed by gradients: the adversary's signs are random, which is a far weaker opponent"
    " than FGSM."
)


@dataclass(frozen=True)
class TierPage:
    """One labelled tier with its plots."""

    letter: str
    title: str
    section: Mapping[str, Any]
    small: bool
    plots: tuple[str, ...]
    robust: str
    sheet: str


def page(account: Mapping[str, Any], outcomes: Mapping[str, Outcome], network: str) -> str:
    """`outcomes`: of the tiers S and L, as far as they were evaluated."""
    environment = Environment(
        loader=PackageLoader("training.evaluation", "templates"), autoescape=True, undefined=StrictUndefined
    )
    given = [letter for letter in ("S", "L") if account[letter]]
    tiers = [_tier(letter, account[letter], outcomes[letter], network, account) for letter in given]
    return environment.get_template("report.html.j2").render(
        account=account,
        tiers=tiers,
        keys=KEYS,
        meaning=MEANING,
        shift_keys=SHIFT_KEYS,
        patients_shown=any(tier.letter == "L" and tier.sheet for tier in tiers),
        dependent=DEPENDENT.replace("`", ""),
        adversary=FGSM if account["adversary"] == "FGSM" else RANDOM,
    )


def _tier(letter: str, told: Mapping[str, Any], outcome: Outcome, network: str, account: Mapping[str, Any]) -> TierPage:
    threshold = account["thresholds"]["any"]
    return TierPage(
        letter=letter,
        title=TITLES[letter],
        section=told,
        small=small(told["counted"]),
        plots=_plots(told, outcome, network, threshold),
        robust=plots.robust(told["robustness"]) if told["robustness"] else "",
        sheet=plots.contact_sheet(outcome.shown),
    )


def _plots(told: Mapping[str, Any], outcome: Outcome, network: str, threshold: float) -> tuple[str, ...]:
    studies, images = plots.study_curves(outcome.judged), plots.image_curves(outcome.judged)
    drawn = [
        plots.roc(studies, "ROC, studies", threshold),
        plots.roc(images, "ROC, slices", threshold),
        plots.precision_recall(images, "Precision and recall, slices"),
        plots.scores(outcome.judged[network], threshold),
    ]
    if told["calibration"]:
        drawn.append(plots.reliability(told["calibration"]["reliability"]))
    if told["lesions"]["volume"]:
        drawn.append(plots.bars(told["lesions"]["volume"], "recall", "lesions", "Lesions found, by volume"))
        drawn.append(plots.bars(told["lesions"]["kind"], "recall", "lesions", "Lesions found, by kind"))
    return tuple(drawn)
