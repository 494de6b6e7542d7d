"""Each recipe that ships with the project is one line over the base, runs, and changes what is learned."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from training.fit.adversarial import attacked
from training.fit.augment import bent, reshaped
from training.fit.data import Batches, TableSlices, Unfit
from training.fit.loop_out import Fitted, fit
from training.fit.options import NONE, FitSettings, Ranges
from training.fit.start_out import absolute, made, started, teacher_of
from training.fit.weights_in import SHIPPED, load_weights, read_weights
from training.networks.adapters import adapted, merged
from training.networks.student import Served, Trunk
from training.networks.teacher import Teacher
from training.onnx_in import OnnxModel
from training.recipe_in import load_recipe
from training.slices_out import SliceTable

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
BASE = "head_ct_lesion"
OPTIONS = sorted(file.stem for file in CONFIGS.glob("*.toml") if file.stem != BASE)
TINY, TINY_TEACHER = (8, 8, 12, 16), (8, 8, 8)
SAME_HERE = {"early_stop", "full_precision"}  # nothing to stop in one epoch, and no GPU
OWN_TEST = {"two_processes"}


def settings_of(option: str) -> FitSettings:
    """The recipe's, but for size and time; a width that the shipped weights have is kept."""
    told = absolute(load_recipe(CONFIGS / f"{option}.toml").fit, CONFIGS)
    widths = TINY_TEACHER if told.network == "teacher" else told.widths if told.start_from else TINY
    rise = 1.0 if told.warm_up else 0.0  # a tenth of four steps is none
    return dataclasses.replace(told, widths=widths, epochs=1, batch_size=4, pretrain_epochs=1, warm_up=rise)


def trained(table: SliceTable, settings: FitSettings, teacher: torch.nn.Module | None = None) -> Fitted:
    """One epoch of four steps."""
    slices = TableSlices(table)
    network = started(settings, slices, quiet=True)
    batches = Batches(slices, slices, settings, slices)
    return fit(network, batches, settings, teacher=teacher, clock=lambda: 0.0, quiet=True)


@pytest.fixture(scope="module")
def base(small_table: SliceTable) -> dict[str, Fitted]:
    """What the base recipe makes of the small network, and of the shipped weights."""
    start = dataclasses.replace(settings_of("fine_tune"), start_from="shipped")
    return {"tiny": trained(small_table, settings_of(BASE)), "shipped": trained(small_table, start)}


@pytest.mark.parametrize("option", [one for one in OPTIONS if one not in OWN_TEST])
def test_an_option_is_a_line_and_changes_what_is_learned(
    option: str, small_table: SliceTable, base: dict[str, Fitted]
) -> None:
    """A real run of a few steps ends in finite weights that are not the base's."""
    settings = settings_of(option)
    torch.manual_seed(5)
    teacher = Teacher(TINY_TEACHER).eval() if settings.teacher else None
    done = trained(small_table, settings, teacher)
    weights = done.network.state_dict()
    assert np.isfinite(done.losses).all()
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    if settings.network == "teacher" or option == "fine_tune":
        return
    other = base["shipped" if settings.start_from else "tiny"].network.state_dict()
    assert other.keys() == weights.keys()
    assert all(torch.equal(value, other[name]) for name, value in weights.items()) == (option in SAME_HERE)


@pytest.mark.parametrize("option", OPTIONS)
def test_a_recipe_says_little_and_is_an_experiment_of_its_own(option: str) -> None:
    """At most three lines beside the base, a sentence that tells why, and products that never replace the shipped."""
    lines = (CONFIGS / f"{option}.toml").read_text("utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert 3 <= len(lines) <= 5
    recipe = load_recipe(CONFIGS / f"{option}.toml")
    assert recipe.variant == option
    assert recipe.fit != load_recipe(CONFIGS / f"{BASE}.toml").fit


def test_two_processes_learn_as_one_network(small_table: SliceTable) -> None:
    """DDP over gloo: two steps of twice four slices, weights finite and not the ones it began with."""
    settings = settings_of("two_processes")
    assert settings.processes == 2
    done = trained(small_table, settings)
    begun = made(settings).state_dict()
    weights = done.network.state_dict()
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    assert not torch.equal(weights["stem.0.0.weight"], begun["stem.0.0.weight"])
    assert done.epochs == len(done.losses) == 1
    assert done.spent_s == 0.0


def test_training_ends_when_validation_no_longer_gets_better(small_table: SliceTable) -> None:
    """All but the answer frozen and a rate that moves nothing: patience of one epoch ends a fit of nine after two."""
    frozen = ("stem", "down", "lift", "up", "paint", "hidden")
    settings = dataclasses.replace(settings_of("freeze"), freeze=frozen, epochs=9, learning_rate=1e-12)
    settings = dataclasses.replace(settings, early_stop=1, optimiser="sgd", weight_decay=0.0)
    assert len(trained(small_table, settings).losses) == 2


def test_shipped_weights_come_back_from_the_graph(small_table: SliceTable) -> None:
    """The network rebuilt from the exported file answers as the file does."""
    weights = read_weights("shipped", "fit.start_from")
    network = Trunk(load_recipe(CONFIGS / f"{BASE}.toml").fit.widths)
    load_weights(network, weights, "shipped", "fit.start_from")
    served, model = Served(network).eval(), OnnxModel(SHIPPED)
    hu = small_table.hu[:3].astype(np.float16)
    spacing = np.repeat(small_table.pitch_mm[:3, None], 2, axis=1)
    with torch.no_grad():
        _, found = served(torch.from_numpy(hu), torch.from_numpy(spacing))
    np.testing.assert_allclose(found.numpy(), model(hu, spacing)[1], atol=1e-4)


def test_frozen_parts_stay_and_the_rest_learns(small_table: SliceTable) -> None:
    """Weights and statistics of what is frozen are those of the start."""
    settings = settings_of("freeze")
    begun = started(settings).state_dict()
    after = trained(small_table, settings).network.state_dict()
    held = [name for name in begun if name.startswith(("stem.", "down.0.")) and "tracked" not in name]
    assert all(torch.allclose(begun[name], after[name], atol=1e-6) for name in held)
    assert not torch.equal(begun["paint.weight"], after["paint.weight"])


def test_adapters_are_few_weights_and_leave_no_trace() -> None:
    """Less than a fifth learns; merged, the network has its layout again and answers the same."""
    torch.manual_seed(0)
    network = adapted(Trunk((24, 40, 64, 96)).eval(), 4)
    learned = sum(one.numel() for one in network.parameters() if one.requires_grad)
    assert learned < 0.2 * sum(one.numel() for one in network.parameters())
    for module in network.modules():
        if hasattr(module, "wide"):
            torch.nn.init.normal_(module.wide.weight, std=0.05)  # type: ignore[union-attr,arg-type]
    image = torch.randn(1, 144, 144) * 30 + 30
    with torch.no_grad():
        before, after = network(image), merged(network)(image)
    assert torch.allclose(before[1], after[1], atol=1e-3)
    assert network.state_dict().keys() == Trunk((24, 40, 64, 96)).state_dict().keys()


def test_an_attack_stays_within_its_bounds_and_hurts() -> None:
    """At most the stated HU, nothing in air, and more loss than as much noise."""
    torch.manual_seed(0)
    network = Trunk(TINY).train()
    image = torch.where(torch.rand(2, 144, 144) < 0.7, torch.randn(2, 144, 144) * 10 + 35, -1000.0)

    def loss_of(moved: torch.Tensor) -> torch.Tensor:
        return network(moved)[0].sum()

    for steps in (1, 3):
        moved = attacked(network, loss_of, image, 6.0, steps)
        assert network.training
        assert float((moved - image).abs().max()) <= 6.0 + 1e-4
        assert torch.equal(moved[image < -300], image[image < -300])
        network.eval()
        with torch.no_grad():
            assert float(loss_of(moved)) > float(loss_of(image + 6 * torch.randn_like(image).sign()))
        network.train()


def test_a_teacher_is_found_in_its_checkpoint(tmp_path: Path) -> None:
    """Whatever its widths; a file that holds none is refused by name."""
    torch.save({"average": Teacher(TINY_TEACHER).state_dict()}, tmp_path / "teacher.pt")
    settings = dataclasses.replace(settings_of(BASE), teacher=str(tmp_path / "teacher.pt"))
    assert isinstance(teacher_of(settings), Teacher)
    torch.save({"average": {"x": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(Unfit, match=r"fit\.teacher.*other\.pt"):
        teacher_of(dataclasses.replace(settings, teacher=str(tmp_path / "other.pt")))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"start_from": "/nowhere/model.pt"}, r"fit\.start_from.*/nowhere/model\.pt"),
        ({"start_from": "shipped"}, r"fit\.start_from.*fit\.widths"),
        ({"freeze": ("brain",)}, r"fit\.freeze.*'brain'.*stem"),
        ({"pretrain": "masked"}, r"fit\.pretrain"),
    ],
)
def test_an_option_that_cannot_be_met_is_named(changed: dict[str, object], told: str) -> None:
    """With its file or part."""
    with pytest.raises(Unfit, match=told):
        started(dataclasses.replace(settings_of(BASE), **changed), quiet=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("fit.optimiser = 'adma'", r"one\.toml.*fit\.optimiser"),
        ("fit.epoch = 3", r"one\.toml.*fit\.epoch"),
        ("fit.augment.turn = 3", r"one\.toml.*fit\.augment\.turn"),
        ("fit.epochs = 0", r"one\.toml.*fit\.epochs"),
        ("fit.freeze = ['stem']", r"one\.toml.*fit\.start_from"),
        ("base = 'none.toml'", r"one\.toml.*none\.toml"),
        ("base = 'one.toml'", r"one\.toml: base"),
        ("fit.epochs = ", r"one\.toml"),
    ],
)
def test_a_wrong_line_is_told_with_file_and_key(line: str, told: str, tmp_path: Path) -> None:
    """Before anything is drawn."""
    (tmp_path / "base.toml").write_text((CONFIGS / f"{BASE}.toml").read_text("utf-8"), "utf-8")
    head = "" if line.startswith("base") else "base = 'base.toml'\n"
    (tmp_path / "one.toml").write_text(head + line, "utf-8")
    with pytest.raises(ValueError, match=told):
        load_recipe(tmp_path / "one.toml")


def test_every_range_bends_and_none_bends_nothing() -> None:
    """Each augmentation alone changes a slice; all switched off leave it; masks follow the geometry."""
    head = torch.full((2, 208, 208), -1000.0)
    head[:, 40:170, 50:150] = 35.0
    head[:, 90:110, 60:75] = 70.0
    mask = (head[:, None] == 70).float()
    pitch = torch.full((2, 2), 1.1)

    def seen(ranges: Ranges) -> tuple[torch.Tensor, torch.Tensor]:
        draw = torch.Generator().manual_seed(4)
        image, target = reshaped(head, mask, pitch, ranges, draw)
        return (image if ranges == NONE else bent(image, ranges, draw)), target

    plain, marked = seen(NONE)
    strong = {"turn_deg": 25, "zoom": 0.3, "shift_mm": 20, "gain": 0.2, "offset_hu": 20, "noise_hu": 20, "blur": 1.0}
    strong |= {"shading_hu": 20, "flip": 1.0, "crop_mm": 60, "contrast": 0.4, "motion_mm": 15}
    for name, reach in strong.items():
        image, target = seen(dataclasses.replace(NONE, **{name: reach}))
        assert float((image - plain).abs().mean()) > 0.01, name
        inside = image[:, None][target > 0]
        assert name in {"offset_hu", "gain", "shading_hu", "noise_hu", "contrast"} or float(inside.mean()) > 45, name
    assert marked.sum() > 100
