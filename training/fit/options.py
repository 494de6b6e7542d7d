"""Every option of a fit, typed. Each is one line of a recipe's `[fit]` table; the defaults are the base's.

Pure, and without PyTorch: recipes are also read where nothing is trained.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Some = Annotated[int, Field(ge=0)]

Optimiser = Literal["adamw", "adam", "sgd"]
Schedule = Literal["cosine", "one_cycle", "plateau", "constant"]
Precision = Literal["auto", "32"]
Imbalance = Literal["none", "weights", "focal", "sampler"]
Pretrain = Literal["none", "masked", "contrastive"]
Pseudo = Literal["none", "mean_teacher", "threshold"]
Attack = Literal["none", "fgsm", "pgd"]
Network = Literal["student", "teacher"]


@dataclass(frozen=True)
class Ranges:
    """How far a training slice may be bent. Angles in degrees, lengths in mm, densities in HU; 0 switches one off."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    turn_deg: NotNegative = 12.0
    zoom: NotNegative = 0.12
    shift_mm: NotNegative = 9.0
    gain: NotNegative = 0.07
    offset_hu: NotNegative = 5.0
    noise_hu: NotNegative = 5.0
    shading_hu: NotNegative = 4.0
    flip: Share = 0.5  # left and right; never top and bottom, which no head is
    crop_mm: NotNegative = 0.0  # a field of view too small: up to this much of a border is air
    contrast: NotNegative = 0.0  # soft tissue's densities are spread or drawn together around those of brain
    motion_mm: NotNegative = 0.0  # the head moved during the rotation: a second, fainter contour beside the first
    blur: Share = 0.6  # how often a kernel is changed


NONE = Ranges(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class FitSettings:
    """How a network is trained."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    seed: Some
    epochs: Count
    batch_size: Count
    learning_rate: Positive
    weight_decay: NotNegative
    widths: tuple[Count, ...]
    # Processor time. It ends a fit after the epoch in which it is used up, and that is told; no rate depends on it.
    budget_s: Positive
    optimiser: Optimiser = "adamw"
    momentum: Share = 0.9  # of SGD
    schedule: Schedule = "cosine"
    warm_up: Share = 0.0  # of all steps: the rate grows from nothing
    patience: Some = 2  # of the plateau schedule: epochs without a better validation loss before the rate is halved
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3  # before the answer
    early_stop: Some = 0  # epochs without a better validation loss after which training ends; 0: never
    precision: Precision = "auto"  # mixed where there is a GPU; this processor's bfloat16 is twenty times slower
    imbalance: Imbalance = "none"
    augment: Ranges = field(default_factory=Ranges)
    network: Network = "student"
    teacher: str = ""  # a teacher's weights, from which the student learns as well
    distil: Share = 0.5  # share of the loss that is the teacher's
    start_from: str = ""  # weights to start from: a checkpoint, an exported graph, or "shipped"
    freeze: tuple[str, ...] = ()  # parts of the network that keep their weights: stem, down, lift, up, paint, hidden …
    adapter_rank: Some = 0  # low-rank adapters on every 3×3 convolution, all else but the heads frozen; 0: none
    unlabelled: str = ""  # folder of DICOM without labels; without it the training slices serve, their labels unread
    pretrain: Pretrain = "none"  # before the fit
    pretrain_epochs: Count = 2
    pseudo: Pseudo = "none"  # during the fit: the averaged network's answers on unlabelled slices
    pseudo_weight: NotNegative = 0.5
    adversarial: Attack = "none"
    adversarial_hu: Positive = 6.0  # farthest change of a sample: about the noise of a thin slice
    adversarial_steps: Count = 3  # of PGD
    processes: Count = 1  # of Lightning's DDP: on a CPU over gloo, on GPUs one each
