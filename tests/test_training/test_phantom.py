"""The phantom is a function of its seed, looks like a head, and its truth is where its lesions are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.phantom.atlas_in import Atlas
from training.phantom.lesions import CHANNEL_OF, CHANNELS, HELD_OUT_KINDS, KINDS, Lesion, plan_lesions
from training.phantom.plan import plan_head
from training.phantom.render import LABELS, SEEN_FROM_MM2, Slices, bleed_extent, labels_of, render
from training.phantom.scanner import HELD_OUT_FAMILY, TRAIN_FAMILIES, plan_scanner

SHAPE, PITCH_MM = (128, 128), 1.9
PLAIN = (0.0, 0.1)


def rendered(atlas: Atlas, seed: int, lesions: tuple[Lesion, ...], centres_mm: list[float]) -> Slices:
    """A small rendering without noise."""
    scanner = plan_scanner(seed, ("soft",))
    return render(atlas, plan_head(seed), lesions, scanner, centres_mm, shape=SHAPE, pitch_mm=PITCH_MM, noisy=False)


def test_same_seed_gives_the_same_pixels_and_another_seed_gives_others(atlas: Atlas) -> None:
    """A phantom is named by its seed: slices can be thrown away and drawn again."""
    first, again, other = (rendered(atlas, seed, (), [10.0, 40.0]) for seed in (3, 3, 4))
    assert np.array_equal(first.hu, again.hu)
    assert not np.array_equal(first.hu, other.hu)


def test_clean_head_has_brain_bone_and_air_in_their_hu_ranges(atlas: Atlas) -> None:
    """Tissue lies where CT puts it: brain 20…50 HU inside the skull, bone above 600, air around the head."""
    head = rendered(atlas, 11, (), [20.0, 30.0, 40.0])
    brain = head.hu[head.inside]
    assert 20 < np.median(brain) < 50
    assert (head.hu > 600).mean() > 0.02
    assert np.all(head.hu[:, 0, 0] == -1000)


def test_clean_head_has_empty_masks_and_no_labels(atlas: Atlas) -> None:
    """A head without a lesion, however many mimics it has, is a negative on every slice."""
    head = rendered(atlas, 12, (), [-60.0, -20.0, 0.0, 20.0, 60.0, 85.0])
    assert not head.masks.any()
    assert not head.labels.any()


@pytest.mark.parametrize("kind", [*KINDS, *HELD_OUT_KINDS])
def test_each_lesion_lies_inside_the_skull_and_changes_the_picture_there(atlas: Atlas, kind: str) -> None:
    """A lesion's mask is within the inner table, in its own channel, and its pixels differ from the clean twin's."""
    seed = 21
    lesions = plan_lesions(seed, PLAIN, (kind,))[:1]
    low, high = bleed_extent(lesions)
    centres = list(np.linspace(low, high, 6))
    sick, well = rendered(atlas, seed, lesions, centres), rendered(atlas, seed, (), centres)
    mask = sick.masks[:, CHANNEL_OF[kind]]
    assert mask.sum() * PITCH_MM**2 > SEEN_FROM_MM2
    assert sick.inside[mask].all()
    assert np.abs(sick.hu - well.hu)[mask].mean() > 4


@pytest.mark.parametrize("kind", ["intraparenchymal", "subdural", "epidural", "subarachnoid", "intraventricular"])
def test_plain_bleed_is_brighter_than_the_brain_it_replaces(atlas: Atlas, kind: str) -> None:
    """Fresh blood is dense: its median HU is above the clean twin's at the same place."""
    seed = 33
    lesions = plan_lesions(seed, PLAIN, (kind,))[:1]
    centres = list(np.linspace(*bleed_extent(lesions), 5))
    sick, well = rendered(atlas, seed, lesions, centres), rendered(atlas, seed, (), centres)
    mask = sick.masks.any(1) & (well.hu < 100)  # where the twin has brain or fluid, not the vault's partial volume
    assert np.median(sick.hu[mask]) > np.median(well.hu[mask]) + 8


def test_labels_are_the_areas_of_the_masks() -> None:
    """A label is 1 from SEEN_FROM_MM2 on, 0 without a pixel, 0.5 between; `any` is the highest of the five."""
    masks = np.zeros((3, len(CHANNELS), 64, 64), bool)
    masks[1, 0, :2, :2] = True  # 4 mm²: grazed
    masks[1, 4, :10, :10] = True  # 100 mm²
    masks[2, 2, 0, :3] = True
    expected = [[0, 0, 0, 0, 0, 0], [1, 0.5, 0, 0, 0, 1], [0.5, 0, 0, 0.5, 0, 0]]
    assert labels_of(masks, 1.0).tolist() == expected
    assert LABELS[0] == "any"


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_every_seed_plans_a_head_within_the_stated_ranges(seed: int) -> None:
    """Grey 31…44 HU, white below grey, skull 4…9.5 mm, and training never draws the held-out families."""
    plan = plan_head(seed)
    assert 31 <= plan.tissue.grey_hu <= 44
    assert 1.5 <= plan.tissue.grey_hu - plan.tissue.white_hu <= 13
    assert 4 <= plan.shape.skull_mm <= 9.5
    assert plan_scanner(seed).family in TRAIN_FAMILIES
    assert HELD_OUT_FAMILY not in TRAIN_FAMILIES
    assert all(lesion.kind not in HELD_OUT_KINDS for lesion in plan_lesions(seed, (0, 1)))
