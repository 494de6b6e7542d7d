"""Tensor specs of every served model: what scoring sends and what it gets back (design decision 9)."""

from dataclasses import dataclass

from contracts.findings import Label

HU_LOW, HU_HIGH = -1024, 3071  # the 12-bit CT range; FP16 is exact to ±2048, finer above than any threshold


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, Triton datatype and dimensions without the batch; −1 is any size."""

    name: str
    datatype: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A served model's inputs, outputs and labels.

    ``labels`` order the probabilities; ``labels[1:]`` order the segmentation channels. ``grid_size`` samples of
    ``grid_pitch_mm`` a side make the served grid, so one sample covers ``grid_pitch_mm ** 2`` mm².
    Operating points come from the model's own Triton configuration (parameters ``threshold.<label>``).
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[Label, ...]


HEAD_CT_LESION = ModelSpec(
    name="head_ct_lesion",
    inputs=(TensorSpec("HU", "FP16", (-1, -1)), TensorSpec("PIXEL_SPACING", "FP32", (2,))),
    outputs=(TensorSpec("PROBABILITIES", "FP32", (6,)), TensorSpec("SEGMENTATION", "FP32", (5, -1, -1))),
    labels=(
        Label.ANY,
        Label.INTRAPARENCHYMAL,
        Label.SUBDURAL_EPIDURAL,
        Label.SUBARACHNOID,
        Label.INTRAVENTRICULAR,
        Label.MASS,
    ),
)

MODELS: dict[str, ModelSpec] = {HEAD_CT_LESION.name: HEAD_CT_LESION}
