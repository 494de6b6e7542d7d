"""Which lane an image takes: a table of rules in the settings, the first that matches wins."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from contracts.errors import SettingsError
from contracts.names import Lane
from contracts.settings import LaneRule


@dataclass(frozen=True, slots=True)
class LaneFacts:
    """What a rule may ask about. ``priority``: low, medium, high (PS3.7 9.3.1.1); empty where the door has none."""

    calling_ae: str = ""
    modality: str = ""
    description: str = ""
    priority: str = ""


class Lanes:
    """The compiled table. Raises SettingsError where a description is no regular expression."""

    def __init__(self, rules: Sequence[LaneRule]) -> None:
        self._rules = [(rule, _compiled(rule.description)) for rule in rules]

    def choose(self, facts: LaneFacts) -> Lane:
        """The lane of the first rule whose every given condition holds; routine where none does."""
        return next((rule.lane for rule, text in self._rules if _holds(rule, text, facts)), Lane.ROUTINE)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as problem:
        raise SettingsError(f"lane rule: description {pattern!r} is no regular expression: {problem}") from None


def _holds(rule: LaneRule, description: re.Pattern[str], facts: LaneFacts) -> bool:
    given = ((rule.calling_ae, facts.calling_ae), (rule.modality, facts.modality), (rule.priority, facts.priority))
    return all(wanted in ("", found) for wanted, found in given) and bool(description.search(facts.description))
