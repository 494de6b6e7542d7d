"""Chains of neighbouring positive slices of one label in one series and orientation. Pure.

Two positive slices are linked when they lie within ``max_gap_mm`` along the slice normal and what they show lies in
the same place. Links are looked for between all slices in reach, not only between next neighbours, so a slice that
arrives later can join chains and never break one: evidence only grows.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from math import hypot

from contracts.findings import Measure

# The centroid of one lesion wanders by a few centimetres from slice to slice (a subdural crescent, a second focus);
# two chance positives in a head of 150 mm lie farther apart than this three times in four.
SAME_PLACE_MM = 40.0
POSITION_GRID_MM = 0.1  # slices closer than this are the same position: a repeated slice is not a second witness


@dataclass(frozen=True, slots=True)
class Positive:
    """One slice in which one label is positive. Positions and thickness in mm along the slice normal."""

    sop_instance_uid: str
    position_mm: float
    thickness_mm: float
    measure: Measure

    @property
    def place(self) -> int:
        """The slice's position on the grid of positions that count as different."""
        return round(self.position_mm / POSITION_GRID_MM)


def same_place(one: Measure, other: Measure) -> bool:
    """Whether two slices show something in the same place; where nothing was located, that cannot be denied."""
    if one.centroid_mm is None or other.centroid_mm is None:
        return True
    (row, column), (other_row, other_column) = one.centroid_mm, other.centroid_mm
    return hypot(row - other_row, column - other_column) <= SAME_PLACE_MM


class Chains:
    """The positive slices of one label, joined into chains as they come (disjoint sets)."""

    def __init__(self, max_gap_mm: float) -> None:
        self._max_gap_mm = max_gap_mm
        self._slices: list[Positive] = []
        self._parent: list[int] = []
        self._order: list[tuple[float, int]] = []  # (position_mm, index into the lists above), sorted

    def __len__(self) -> int:
        return len(self._slices)

    def add(self, positive: Positive) -> None:
        """Joins the slice with every chain in reach: as many steps as there are slices within the gap."""
        index = len(self._slices)
        self._slices.append(positive)
        self._parent.append(index)
        for other in self._in_reach(positive.position_mm):
            self._join(index, other)
        insort(self._order, (positive.position_mm, index))

    def chains(self) -> list[list[Positive]]:
        """Every chain, a lone slice included."""
        found: dict[int, list[Positive]] = {}
        for index, positive in enumerate(self._slices):
            found.setdefault(self._root(index), []).append(positive)
        return list(found.values())

    def _in_reach(self, position_mm: float) -> Iterator[int]:
        at = bisect_left(self._order, (position_mm - self._max_gap_mm, -1))
        while at < len(self._order) and self._order[at][0] <= position_mm + self._max_gap_mm:
            yield self._order[at][1]
            at += 1

    def _join(self, index: int, other: int) -> None:
        root, other_root = self._root(index), self._root(other)
        if root != other_root and same_place(self._slices[index].measure, self._slices[other].measure):
            self._parent[root] = other_root

    def _root(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index
