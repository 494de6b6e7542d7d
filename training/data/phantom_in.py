"""Phantom series as studies: whole heads by seed, drawn when asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.study import GRAZED, KINDS, Doubt, Entry, Facts, Study, Truth
from training.phantom.atlas_in import Atlas
from training.phantom.lesions import CHANNEL_OF, CHANNELS
from training.phantom.scanner import HELD_OUT_FAMILY, TRAIN_FAMILIES, plan_scanner
from training.recipe import GENERATOR_VERSION, SliceSet
from training.slices_out import SERIES_FROM_MM, SERIES_SPACING_MM, draw_head, lesions_of


class PhantomSource:
    """The heads of a set whose `series` is on."""

    def __init__(self, wanted: SliceSet, atlas: Atlas) -> None:
        if not wanted.series:
            raise ValueError("scattered slices are no study: the set must be a series")
        self._wanted = wanted
        self._atlas = atlas

    @property
    def version(self) -> str:
        """Of the generator and of the set."""
        return f"phantom-{GENERATOR_VERSION}-{self._wanted.key}"

    def entries(self) -> Sequence[Entry]:
        """One head a seed; a head is a patient."""
        return tuple(self._entry(self._wanted.first_seed + nth) for nth in range(self._wanted.heads))

    def doubts(self) -> Sequence[Doubt]:
        """None: we made them."""
        return ()

    def _entry(self, seed: int) -> Entry:
        kinds = frozenset(CHANNELS[CHANNEL_OF[lesion.kind]] for lesion in lesions_of(self._wanted, seed))
        return Entry(f"phantom.{seed}", f"phantom.{seed}", str(seed), bool(kinds), kinds)

    def load(self, entry: Entry) -> Study:
        """Draws the head: 0.15 s a slice and core."""
        seed = int(entry.place)
        drawn = draw_head(self._wanted, seed, self._atlas)
        pitch_mm = float(drawn["pitch_mm"].astype(np.float64)[0])
        families = (HELD_OUT_FAMILY,) if self._wanted.held_out_scanner else TRAIN_FAMILIES
        scanner = plan_scanner(seed, families)
        labels = drawn["labels"].astype(np.float32)
        return Study(
            uid=entry.uid,
            patient=entry.patient,
            hu=drawn["hu"].astype(np.int16),
            spacing_mm=(SERIES_SPACING_MM, pitch_mm, pitch_mm),
            z_mm=(SERIES_FROM_MM + SERIES_SPACING_MM * np.arange(len(labels))).astype(np.float32),
            truth=Truth(
                any=_seen(labels[:, 0]),
                by_label={
                    kind.value: here for nth, kind in enumerate(KINDS, 1) if (here := _seen(labels[:, nth])) is not None
                },
                by_slice=labels,
                masks=drawn["bits"].astype(np.uint8),
            ),
            facts=Facts(scanner=f"phantom {scanner.family}", slice_mm=scanner.slab_mm),
            source="phantom",
        )


def _seen(told: NDArray[np.float32]) -> bool | None:
    """Of one label's slices: a lesion that the slices only graze is neither there nor absent."""
    return None if told.max() == GRAZED else bool(told.max() == 1)
