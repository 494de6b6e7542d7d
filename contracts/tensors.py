"""Tensor specs of every served model: what scoring sends and what it gets back (design decision 9)."""

from dataclasses import dataclass

from contracts.findings import Label

HU_LOW, HU_HIGH = -1024, 3071  # the 12-bit CT range; FP16 is exact to ±2048, finer above than any threshold
# LossyImageCompressionRatio (0028,2112) from which on blocks and rings are more than the image: several times what
# guidelines allow for head CT (5 to 8); of pydicom's 693_J2KI, at 339, nothing but blocks is left.
LARGEST_LOSSY_RATIO = 50.0


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, Triton datatype and dimensions without the batch; −1 is any size."""

    name: str
    datatype: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A served model's inputs, outputs and labels; ``labels`` are empty where a model finds nothing but an organ.

    ``labels`` order the probabilities; ``labels[1:]`` order the segmentation channels. ``grid_size`` samples of
    ``grid_pitch_mm`` a side make the served grid, so one sample covers ``grid_pitch_mm ** 2`` mm². Every grid is
    centred on the patient's centroid, so that grids of different pitch lie over each other.
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

# Which samples lie inside the skull (within the inner table, blood and CSF included): 0…1.
BRAIN_MASK = ModelSpec(
    name="brain_mask",
    inputs=HEAD_CT_LESION.inputs,
    outputs=(TensorSpec("MASK", "FP32", (1, -1, -1)),),
    labels=(),
)

MODELS: dict[str, ModelSpec] = {spec.name: spec for spec in (HEAD_CT_LESION, BRAIN_MASK)}
