"""Image scores → a study's findings (design decision 8). Pure, and the same for any order of arrival.

- Neighbouring slices of one series and one orientation must agree: ``agree_slices`` different positions that together
  cover ``agree_extent_mm`` along the normal, in a chain of positives (``chains``).
- Volume in ml is the sum of areas × slice spacing (median distance of neighbours; the thickness of a lone slice).
  A chain smaller than ``min_volume_ml`` is no finding. That gate uses each slice's own thickness, because spacing is
  only known when the series is complete and a flag must not come and go while slices arrive. Positives whose area the
  segmentation leaves at zero are of unknown size, not small: ``agree_slices`` of them pass. One that marked nothing but
  what lies outside the head is of known size: none.
- The worst series counts, label by label; series are never summed, since they show the same head again.
- The model's overall answer ANY is the gate: its operating point is the one chosen at a stated false-alarm rate. A
  slice speaks for a kind only if it speaks for ANY; six labels that each may be wrong would add up their false alarms.
- ANY positive and agreed while no kind is: one finding ``lesion``.
- A slice with too few others within ``max_gap_mm`` cannot agree with any: a short series, slices far apart, gaps
  where images went missing. When the study closes, and only then, such a slice speaks for itself if its probability is
  near certainty (``SURE_SHARE``); until then it only waits for neighbours.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import fsum
from statistics import median

from contracts.findings import URGENCY_OF, Finding, Label, Measure, Urgency
from contracts.settings import FlaggingSettings
from worker.flagging.chains import POSITION_GRID_MM, Chains, Positive

# Without a neighbour to agree, three quarters of the way from the model's operating point to certainty.
SURE_SHARE = 0.75
ML_PER_MM3 = 0.001
TOUCH_MM = 1e-6  # five slices of 0.6 mm do cover 3 mm, whatever binary fractions say
_URGENCIES = list(Urgency)  # most urgent first, as declared


@dataclass(frozen=True, slots=True)
class Slice:
    """One scored frame. Positions and thickness in mm along the slice normal."""

    sop_instance_uid: str
    series_instance_uid: str
    orientation: str
    position_mm: float
    thickness_mm: float
    measures: Mapping[Label, Measure]

    @property
    def group(self) -> tuple[str, str]:
        """Slices agree only within one series and orientation."""
        return (self.series_instance_uid, self.orientation)

    def positive(self, label: Label) -> Positive | None:
        """The slice as a witness for a label; a kind's witness must be one for ANY too, where the model tells it."""
        measure, overall = self.measures.get(label), self.measures.get(Label.ANY)
        if measure is None or not measure.positive or (overall is not None and not overall.positive):
            return None
        return Positive(self.sop_instance_uid, self.position_mm, self.thickness_mm, measure)


def urgency_of(findings: Iterable[Finding]) -> Urgency:
    """The most urgent finding's class; routine where there is none."""
    return min((URGENCY_OF[finding.name] for finding in findings), key=_URGENCIES.index, default=Urgency.ROUTINE)


def sure(measure: Measure) -> bool:
    """Whether a slice is so certain that it may stand alone."""
    return measure.probability >= measure.threshold + SURE_SHARE * (1.0 - measure.threshold)


class Evidence:
    """All scored frames of a study. Only the series that a frame touches is looked at again."""

    def __init__(self, rules: FlaggingSettings) -> None:
        self._rules = rules
        self._slices: dict[Hashable, Slice] = {}
        self._groups: dict[tuple[str, str], _Group] = {}

    def put(self, key: Hashable, one: Slice) -> None:
        """Adds a frame's scores, or replaces what that frame (``key``) had."""
        before = self._slices.get(key)
        self._slices[key] = one
        if before is None:
            self._group(one.group).add(one)
        elif before != one:
            self._rebuild({before.group, one.group})

    def findings(self, *, final: bool) -> tuple[Finding, ...]:
        """The study's findings: most urgent, measured, most probable first. ``final``: the study is closed."""
        worst = {label: finding for label in Label if (finding := self._worst(label, final=final))}
        lesion = worst.pop(Label.ANY, None)
        if lesion is not None and not worst:
            worst[Label.LESION] = lesion.model_copy(update={"name": Label.LESION})
        return tuple(sorted(worst.values(), key=_reading_order))

    def _worst(self, label: Label, *, final: bool) -> Finding | None:
        found = ((group.finding(label, final=final), name) for name, group in self._groups.items())
        ranked = [(one.volume_ml, one.probability, name, one) for one, name in found if one is not None]
        return max(ranked, key=lambda entry: entry[:3])[3] if ranked else None

    def _group(self, name: tuple[str, str]) -> "_Group":
        return self._groups.setdefault(name, _Group(self._rules))

    def _rebuild(self, names: set[tuple[str, str]]) -> None:
        for name in names:
            self._groups[name] = _Group(self._rules)
        for one in self._slices.values():
            if one.group in names:
                self._groups[one.group].add(one)


def _reading_order(finding: Finding) -> tuple[int, bool, float, str]:
    urgency = _URGENCIES.index(URGENCY_OF[finding.name])
    return (urgency, finding.volume_ml == 0.0, -finding.probability, finding.name)


class _Group:
    """The slices of one series and orientation."""

    def __init__(self, rules: FlaggingSettings) -> None:
        self._rules = rules
        self._places: list[int] = []  # different positions on the grid, sorted
        self._thickness_mm = 0.0
        self._chains: dict[Label, Chains] = {}
        self._known: dict[tuple[Label, bool], Finding | None] = {}

    def add(self, one: Slice) -> None:
        self._place(round(one.position_mm / POSITION_GRID_MM))
        self._thickness_mm = max(self._thickness_mm, one.thickness_mm)
        for label in one.measures:
            positive = one.positive(label)
            if positive is not None:
                self._chains.setdefault(label, Chains(self._rules.max_gap_mm)).add(positive)
        self._known.clear()

    def finding(self, label: Label, *, final: bool) -> Finding | None:
        if label not in self._chains:
            return None
        if (label, final) not in self._known:
            self._known[label, final] = self._look(label, final=final)
        return self._known[label, final]

    def _look(self, label: Label, *, final: bool) -> Finding | None:
        chains = self._chains[label].chains()
        agreed = [one for chain in chains if self._agrees(chain) for one in chain]
        if not agreed and final:
            large = (one for chain in chains if self._large(chain, 1) for one in chain)
            agreed = [one for one in large if sure(one.measure) and self._alone(one)]
        return self._tell(label, agreed) if agreed else None

    def _agrees(self, chain: list[Positive]) -> bool:
        thickness_mm = _per_place(chain, lambda one: one.thickness_mm)
        enough = len(thickness_mm) >= self._rules.agree_slices
        long_enough = fsum(thickness_mm.values()) >= self._rules.agree_extent_mm - TOUCH_MM
        return enough and long_enough and self._large(chain, self._rules.agree_slices)

    def _alone(self, one: Positive) -> bool:
        """Whether all slices in its reach together could not agree, whatever they showed."""
        reach = int(self._rules.max_gap_mm / POSITION_GRID_MM)
        near = bisect_right(self._places, one.place + reach) - bisect_left(self._places, one.place - reach)
        return near < self._rules.agree_slices or near * self._thickness_mm < self._rules.agree_extent_mm - TOUCH_MM

    def _large(self, chain: list[Positive], unmeasured_slices: int) -> bool:
        volume_mm3 = _per_place(chain, lambda one: one.measure.area_mm2 * one.thickness_mm)
        unmeasured = {one.place for one in chain if one.measure.area_mm2 == one.measure.outside_mm2 == 0.0}
        large = fsum(volume_mm3.values()) * ML_PER_MM3 >= self._rules.min_volume_ml
        return large or len(unmeasured) >= unmeasured_slices

    def _tell(self, label: Label, agreed: list[Positive]) -> Finding:
        area_mm2 = _per_place(agreed, lambda one: one.measure.area_mm2)
        return Finding(
            name=label,
            probability=max(one.measure.probability for one in agreed),
            volume_ml=round(fsum(area_mm2.values()) * self._spacing_mm() * ML_PER_MM3, 3),
            sop_instance_uids=_key_images(agreed, self._rules.key_images),
        )

    def _spacing_mm(self) -> float:
        gaps_mm = [(after - before) * POSITION_GRID_MM for before, after in pairwise(self._places)]
        near_mm = [gap for gap in gaps_mm if gap <= self._rules.max_gap_mm]
        return median(near_mm) if near_mm else self._thickness_mm

    def _place(self, place: int) -> None:
        at = bisect_left(self._places, place)
        if at == len(self._places) or self._places[at] != place:
            insort(self._places, place)


def _per_place(slices: Iterable[Positive], value: Callable[[Positive], float]) -> dict[int, float]:
    """The largest value at each position: two pictures of one position are one witness."""
    found: dict[int, float] = {}
    for one in slices:
        found[one.place] = max(found.get(one.place, 0.0), value(one))
    return found


def _key_images(slices: list[Positive], count: int) -> tuple[str, ...]:
    """The instances with the largest area; where areas are equal, the most probable."""
    by_size = sorted(slices, key=lambda one: (-one.measure.area_mm2, -one.measure.probability, one.sop_instance_uid))
    return tuple(dict.fromkeys(one.sop_instance_uid for one in by_size))[:count]
