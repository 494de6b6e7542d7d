"""The shipped brain mask: sees the brain of heads, and none where there is none; small, and drawn from its seeds."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.brain import inside
from training.brain.bodies import BODIES, body
from training.brain.judge import judged
from training.brain.run_out import masks_of
from training.brain.slices_out import BrainSet, draw
from training.networks.brain_mask import MASK_PITCH_MM, MASK_SIZE
from training.phantom.atlas_in import Atlas
from training.preprocess import GRID_PITCH_MM, GRID_SIZE
from training.serving.samples_in import real_slices
from training.serving.session_in import answers, session, slice_feed
from worker.scoring import inside as service

ROOT = Path(__file__).parents[2]
FILE = ROOT / "triton_models" / "brain_mask" / "1" / "model.onnx"
LARGEST_BYTES = 1_000_000
HELD_OUT = BrainSet(first_seed=22_000_000, heads=4, slices_per_head=6, held_out=True)


def mask_of(hu: NDArray[Any], pitch_mm: float) -> NDArray[Any]:
    """The served answer (S, S)."""
    return answers(session(FILE), slice_feed(hu, pitch_mm))["MASK"][0, 0]


def area_cm2(mask: NDArray[Any]) -> float:
    """What is more likely inside than not."""
    return float((mask >= 0.5).sum()) * MASK_PITCH_MM**2 / 100


def test_the_file_is_small_and_its_grid_is_the_networks() -> None:
    """Well under a megabyte; half the main model's resolution about the same centre."""
    assert FILE.stat().st_size < LARGEST_BYTES
    assert mask_of(np.full((128, 128), -1000.0), 1.0).shape == (MASK_SIZE, MASK_SIZE)


def test_a_real_head_holds_brain_where_it_lies() -> None:
    """The pydicom package's head CT: 100 to 150 cm² about the middle, nothing at the corners."""
    (hu, pitch_mm), *_ = real_slices()
    mask = mask_of(hu, pitch_mm)
    assert 80 < area_cm2(mask) < 160
    assert mask[:8, :8].max() < 0.2


@pytest.mark.parametrize("name", ["CT_small.dcm"])
def test_a_real_slice_of_another_part_holds_none(name: str) -> None:
    """A spine seen close."""
    (hu, pitch_mm), *_ = real_slices((name,))
    assert mask_of(hu, pitch_mm).max() < 0.2


@pytest.mark.parametrize("kind", range(len(BODIES)), ids=[make.__name__.strip("_") for make in BODIES])
def test_drawn_bodies_hold_none(kind: int) -> None:
    """Trunks, necks, limbs and noise of seeds never trained on; water in a wall like bone seldom passes for a head."""
    seen = [area_cm2(mask_of(body(7 * (10**9 + nth) + kind, 208, 1.4), 1.4)) >= 3 for nth in range(6)]
    assert sum(seen) <= (BODIES[kind].__name__ == "_vessel_of_water")


def test_held_out_heads_are_masked_as_the_report_says(atlas: Atlas, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Other seeds, another scanner family: Dice near the report's, nobody's brain overlooked."""
    table = draw(HELD_OUT, atlas, tmp_path_factory.mktemp("brain"))
    figures = judged(masks_of(FILE, table), MASK_PITCH_MM)
    told = json.loads((ROOT / "training" / "reports" / "brain_mask.json").read_text("utf-8"))["held_out_scanner"]
    assert figures.slices_with_brain >= 8
    assert figures.dice > told["dice"] - 0.05
    assert figures.missed == 0
    assert figures.seen_where_none_is <= 1


def test_the_mask_is_read_here_as_the_service_reads_it() -> None:
    """Limits, number by number; on masks of every fill, whether there is brain and what counts on the main grid."""
    for name in ("BRAIN_FROM", "HINT_FROM", "HINT_MM2", "ROOM_MM"):
        assert getattr(inside, name) == getattr(service, name), name
    rng = np.random.default_rng(0)
    for share in (0.0, 0.001, 0.002, 0.004, 0.01, 0.5):
        chance = np.where(rng.random((MASK_SIZE, MASK_SIZE)) < share, rng.random((MASK_SIZE, MASK_SIZE)), 0.0)
        theirs = service.Inside(chance.astype(np.float32), MASK_PITCH_MM)
        assert inside.holds_brain(theirs.chance, MASK_PITCH_MM) == theirs.holds_brain
        ours = inside.on_grid(inside.roomy(theirs.chance, MASK_PITCH_MM), MASK_PITCH_MM, GRID_SIZE, GRID_PITCH_MM)
        assert (ours == theirs.on((GRID_SIZE, GRID_SIZE), GRID_PITCH_MM)).all()


def test_a_mask_is_judged_by_the_services_bar() -> None:
    """A hint of a cm² at a chance of 0.2 is brain enough; a mask that shows none beside brain takes nothing away."""
    truth, hint, none = np.ones((20, 20)), np.zeros((20, 20)), np.zeros((20, 20))
    hint[:2, :5] = 0.3
    told = judged([(hint, truth), (none, truth), (hint, none), (none, none)], pitch_mm=3.2)
    assert (told.slices_with_brain, told.missed, told.slices_without, told.seen_where_none_is) == (2, 1, 2, 1)
    assert told.left_out_worst == 0


def test_the_report_is_of_the_shipped_file() -> None:
    """`triage train brain-mask --evaluate-only` was run on these very weights."""
    told = json.loads((ROOT / "training" / "reports" / "brain_mask.json").read_text("utf-8"))
    assert told["sha256"] == hashlib.sha256(FILE.read_bytes()).hexdigest()
