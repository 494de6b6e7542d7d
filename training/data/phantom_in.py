"""Phantom series as studies: whole heads by seed, drawn when asked for."""

from __future__ import annotations

from collections.abc import Sequence

from training.data.study import Doubt, Entry, Study
from training.phantom.atlas_in import Atlas
from training.phantom.lesions import CHANNEL_OF, CHANNELS
from training.phantom.series import Wish, draw_series, lesions_of, plan_series
from training.recipe import GENERATOR_VERSION, SliceSet

MATRIX = 208  # rows and columns of a recipe's slices: what the network resamples to, and a little more
SLICE_MM = 5.0  # of a recipe's series: they cover a head in slices_per_head


class PhantomStudies:
    """`count` studies of seeds from `first_seed` on; a head is a patient."""

    def __init__(self, first_seed: int, count: int, wish: Wish, atlas: Atlas) -> None:
        self._seeds = range(first_seed, first_seed + count)
        self._wish = wish
        self._atlas = atlas

    @property
    def version(self) -> str:
        """Of the generator and of the wish."""
        return f"phantom-{GENERATOR_VERSION}-{self._wish}"

    def entries(self) -> Sequence[Entry]:
        """One a seed; what is planned, no pixel drawn."""
        return tuple(self._entry(seed) for seed in self._seeds)

    def doubts(self) -> Sequence[Doubt]:
        """None: we made them."""
        return ()

    def _entry(self, seed: int) -> Entry:
        kinds = frozenset(CHANNELS[CHANNEL_OF[lesion.kind]] for lesion in lesions_of(seed, self._wish))
        return Entry(f"phantom-{seed}", f"phantom-{seed}", str(seed), bool(kinds), kinds)

    def load(self, entry: Entry) -> Study:
        """Draws the head: about 0.15 s a slice and core at 512 × 512."""
        return draw_series(plan_series(int(entry.place), self._wish), self._atlas).study


class PhantomSource(PhantomStudies):
    """The heads of a recipe's set whose `series` is on."""

    def __init__(self, wanted: SliceSet, atlas: Atlas) -> None:
        if not wanted.series:
            raise ValueError("scattered slices are no study: the set must be a series")
        super().__init__(wanted.first_seed, wanted.heads, wish_of(wanted), atlas)


def wish_of(wanted: SliceSet) -> Wish:
    """What a recipe's set asks of the generator."""
    return Wish(
        lesion_share=wanted.lesion_share,
        difficulty=wanted.difficulty,
        slice_mm=SLICE_MM,
        slices=wanted.slices_per_head,
        matrix=MATRIX,
        held_out_lesions=wanted.held_out_lesions,
        held_out_scanner=wanted.held_out_scanner,
    )
