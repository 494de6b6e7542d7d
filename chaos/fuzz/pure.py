"""Targets that are pure functions: the grammar of each, and its share. What each may do lies in *_targets beside it.

Anything that a function raises and its target does not declare is a crash.
"""

from collections.abc import Callable
from functools import lru_cache

from chaos.fuzz import log_targets, producer_targets, scoring_targets, view_targets, worklist_targets
from chaos.fuzz.dice import Dice
from chaos.fuzz.grammar import http, part10, records, stow
from chaos.fuzz.samples_in import all_samples, heads
from chaos.fuzz.target import Target

UNCOMPRESSED = 4  # of the heads: whether a decoder reads the others is what ``analysis`` tries


@lru_cache
def _objects() -> Callable[[Dice], bytes]:
    return part10.grammar_of(all_samples())


def _part10(dice: Dice) -> bytes:
    return _objects()(dice)


@lru_cache
def _slices() -> Callable[[Dice], bytes]:
    return part10.series_of(heads()[:UNCOMPRESSED])


def _series(dice: Dice) -> bytes:
    return _slices()(dice)


def _told_cursor(dice: Dice) -> bytes:
    return http.cursor(dice) if not dice.chance(6) else dice.pick(http.EVENT_IDS)


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("intake", _part10, producer_targets.intake, 8),
        Target("header", _part10, producer_targets.header, 6),
        Target("multipart", stow.grammar_of(_part10), producer_targets.multipart, 6),
        Target("analysis", _part10, scoring_targets.analysis, 6),
        Target("record", records.scan_of(_part10), scoring_targets.record, 5),
        Target("events", records.event, log_targets.events, 12),
        Target("scan_headers", records.scan_headers, log_targets.scan_headers, 8),
        Target("fold", records.events, log_targets.fold, 3),
        Target("replay", records.events, log_targets.replay, 2),
        Target("image_to_view", _series, view_targets.image_to_view, 3),
        Target("cursor", _told_cursor, worklist_targets.cursor, 8),
        Target("api", http.request, worklist_targets.api, 4),
    )
}
