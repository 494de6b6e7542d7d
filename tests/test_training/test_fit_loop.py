"""Lightning's loop around the network: learns, goes on, ends in time, and over two processes."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.losses.dice import DiceLoss

from training.fit.data import Batches, TableSlices, Unfit
from training.fit.loop_out import CHECKPOINT, Fitted, fit
from training.fit.losses import DICE_WEIGHT, SEGMENTATION_WEIGHT, LesionLoss
from training.fit.module import EXTRA
from training.fit.options import FitSettings
from training.networks.student import Trunk
from training.slices_out import SliceTable

WIDTHS = (8, 8, 12, 16)
SETTINGS = FitSettings(
    seed=3, epochs=4, batch_size=8, learning_rate=3e-3, weight_decay=0.01, widths=WIDTHS, budget_s=1e9
)


def with_(**changed: object) -> FitSettings:
    """The tests' settings, but for these."""
    return dataclasses.replace(SETTINGS, **changed)  # type: ignore[arg-type]  # names are the options'


def trained(table: SliceTable, settings: FitSettings, folder: Path | None = None, **more: object) -> Fitted:
    """A tiny network fitted to the table, validated on it as well."""
    torch.manual_seed(settings.seed)
    slices = TableSlices(table)
    more.setdefault("clock", lambda: 0.0)
    return fit(Trunk(WIDTHS), Batches(slices, slices, settings), settings, folder=folder, quiet=True, **more)  # type: ignore[arg-type]


def test_fitting_lowers_the_loss(small_table: SliceTable) -> None:
    """A few steps on real phantom slices learn something."""
    done = trained(small_table, SETTINGS)
    assert done.losses[-1] < 0.9 * done.losses[0]


def test_a_cut_off_fit_goes_on_to_the_same_weights(small_table: SliceTable, tmp_path: Path) -> None:
    """Stopped in its third epoch and started again: bit for bit the network of four epochs in one sitting."""
    whole = trained(small_table, SETTINGS)
    calls = iter(range(10**6))

    def power_cut() -> float:
        if next(calls) >= 9:  # two steps an epoch, two looks at the clock a step
            raise KeyboardInterrupt
        return 0.0

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trained(small_table, SETTINGS, tmp_path, clock=power_cut)
    assert (tmp_path / f"{CHECKPOINT}.ckpt").exists()
    resumed = trained(small_table, SETTINGS, tmp_path)
    assert resumed.epochs == 4
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    assert any(tmp_path.glob("curves/events.out.tfevents.*"))


def test_the_budget_ends_a_fit(small_table: SliceTable) -> None:
    """Each step takes five minutes on this clock and an epoch has two; a budget of fifteen minutes allows two."""
    ticks = iter(range(0, 10**6, 300))
    done = trained(small_table, with_(budget_s=900.0, epochs=50), clock=lambda: float(next(ticks)))
    assert done.epochs == 2
    assert done.out_of_time


def test_a_slower_machine_trains_the_same_network(small_table: SliceTable) -> None:
    """Rates follow the steps alone: all but the whole budget spent, the weights are those of no time at all."""
    ticks = iter(range(0, 10**6, 300))
    slow = trained(small_table, with_(budget_s=2500.0), clock=lambda: float(next(ticks)))
    fast = trained(small_table, SETTINGS)
    assert slow.spent_s == 2400.0
    assert not slow.out_of_time
    for name, value in fast.network.state_dict().items():
        assert torch.equal(value, slow.network.state_dict()[name]), name


def test_processes_end_a_fit_together(small_table: SliceTable) -> None:
    """One of two has used up its time, and both stop: else the other would wait for it for ever."""
    parent = os.getpid()
    calls = iter(range(10**6))

    def clock() -> float:
        first = torch.distributed.is_initialized() and torch.distributed.get_rank() == 0
        return 0.0 if os.getpid() == parent or first else 1000.0 * next(calls)

    done = trained(small_table, with_(budget_s=900.0, batch_size=4, processes=2), clock=clock)
    assert done.epochs == 1
    assert done.out_of_time


def test_a_checkpoint_of_the_older_form_is_gone_on_from(small_table: SliceTable, tmp_path: Path) -> None:
    """It held losses and time beside the weights, not among them."""
    trained(small_table, with_(epochs=2), tmp_path)
    file = tmp_path / f"{CHECKPOINT}.ckpt"
    held = torch.load(file, weights_only=True)
    told = held["state_dict"].pop(EXTRA)
    held["losses"], held["spent_s"] = told["losses"], told["spent_s"]
    torch.save(held, file)
    done = trained(small_table, SETTINGS, tmp_path)
    assert done.epochs == 4
    assert done.losses[:2] == told["losses"]


def test_a_damaged_checkpoint_is_refused_by_name(small_table: SliceTable, tmp_path: Path) -> None:
    """No traceback of PyTorch's: the file and the way out."""
    (tmp_path / f"{CHECKPOINT}.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(Unfit, match=r"fit\.ckpt.*--fresh"):
        trained(small_table, SETTINGS, tmp_path)


def test_more_slices_a_batch_than_there_are_is_refused(small_table: SliceTable) -> None:
    """An epoch without a step would look like training."""
    with pytest.raises(Unfit, match=r"fit\.batch_size"):
        trained(small_table, with_(batch_size=17))


def test_the_loss_is_cross_entropies_and_dice_and_asks_nothing_unsaid() -> None:
    """As written out by hand; labels of 0.5 and NaN, and masks not said, change nothing."""
    draw = torch.Generator().manual_seed(0)
    logits, pixels = torch.randn(3, 6, generator=draw), torch.randn(3, 5, 8, 8, generator=draw)
    labels = (torch.rand(3, 6, generator=draw) < 0.5).float()
    masks = (torch.rand(3, 5, 8, 8, generator=draw) < 0.3).float()
    bleed, said = masks.amax(1, keepdim=True), torch.ones(3, 6)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    overlap = DiceLoss(sigmoid=True, batch=True, smooth_nr=20, smooth_dr=20)(pixels, masks)
    by_hand = entropy(logits, labels) + SEGMENTATION_WEIGHT * entropy(pixels, masks, weight=1 + 4 * masks)
    loss = LesionLoss()
    found = loss((logits, pixels), labels, masks, bleed, said)
    assert float(found) == pytest.approx(float(by_hand + DICE_WEIGHT * overlap), rel=1e-5)
    labels[0] = torch.tensor([0.5, float("nan")] * 3)
    said[1] = 0
    one = loss((logits, pixels), labels, masks, bleed, said)
    logits[0], pixels[1] = 9.0, 9.0
    assert float(loss((logits, pixels), labels, masks, bleed, said)) == pytest.approx(float(one))


def test_every_epoch_sees_every_slice_in_another_order(small_table: SliceTable) -> None:
    """And the same epoch the same."""
    slices = TableSlices(small_table)
    batches = Batches(slices, None, SETTINGS)
    seen = []
    for epoch in (0, 1, 0):
        batches.begin(epoch)
        seen.append([int(row) for batch, *_ in batches.train_dataloader() for row in batch["labelled"]["row"]])
    assert sorted(seen[0]) == list(range(len(slices)))
    assert seen[0] != seen[1]
    assert seen[0] == seen[2]
    assert np.unique(seen[1]).size == len(slices)
