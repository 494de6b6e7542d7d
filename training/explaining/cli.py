"""`triage explain FILE`: what the network looked at on one slice, as a PNG beside the slice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from training.evaluation.network_in import Network
    from training.explaining.methods import Heat, Slice
    from training.explaining.subject import Subject

app = typer.Typer(help="Show where the network looked on one slice.", add_completion=False)
SHIPPED = Path(__file__).parents[2] / "triton_models" / "head_ct_lesion" / "1" / "model.onnx"
DEFAULT_METHODS = ("segmentation", "gradcam", "integrated-gradients")

Method = Annotated[
    list[str] | None,
    typer.Option(
        help="segmentation, gradcam, gradcam-averaged, integrated-gradients, shap; repeatable. By default the first,"
        " the second and the fourth."
    ),
]


@app.command()
def explain(  # Typer's options are the arguments
    file: Annotated[Path, typer.Argument(help="A DICOM slice.", exists=True, dir_okay=False)],
    model: Annotated[Path, typer.Option(help="An exported model.", exists=True, dir_okay=False)] = SHIPPED,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Gradients of this checkpoint instead of the model's.", exists=True)
    ] = None,
    method: Method = None,
    label: Annotated[str, typer.Option(help="The label to explain.")] = "any",
    out: Annotated[Path | None, typer.Option(help="The PNG to write; by default FILE's name in this folder.")] = None,
) -> None:
    """Write the picture and tell the probabilities."""
    from training.evaluation.network_in import Network  # noqa: PLC0415  # PyTorch and the rest, only for work
    from training.evaluation.reading import LABELS  # noqa: PLC0415  # heavy: only for work
    from training.evaluation.scope import plane_refusal  # noqa: PLC0415  # heavy: only for work
    from training.explaining.picture import NOTICE, draw  # noqa: PLC0415  # heavy: only for work

    _checked(method or DEFAULT_METHODS, label, LABELS)
    target = _target(out or Path(f"{file.stem}.explained.png"))
    one, network = slice_of(file), Network(model)
    refused = plane_refusal(one.hu.shape, one.spacing_mm)
    if refused:
        typer.echo(f"{file}: the service would not analyse this slice: {refused}", err=True)
    probabilities, values = network.answers(one.hu[None], one.spacing_mm)
    nth = LABELS.index(label)
    work = _Work(one, network, nth, values[0], model, checkpoint)
    heats = [work.heat(name) for name in method or DEFAULT_METHODS]
    told = f"{label}: {probabilities[0, nth]:.2f} (operating point {network.thresholds[label]:.2f})"
    draw(one, heats, told, target)
    print("\n".join(f"{name:<20}{value:6.3f}" for name, value in zip(LABELS, probabilities[0], strict=True)))  # noqa: T201  # the answer
    print(f"{target}\n{NOTICE}")  # noqa: T201  # a command line prints


def _target(out: Path) -> Path:
    """Where a picture may be written: told before the work, and never over a scan."""
    if out.suffix.lower() != ".png":
        raise typer.BadParameter(f"{out} is no .png", param_hint="--out")
    if not out.absolute().parent.is_dir() or not os.access(out.absolute().parent, os.W_OK):
        raise typer.BadParameter(f"{out.absolute().parent} is no folder that can be written to", param_hint="--out")
    return out


def _checked(methods: list[str] | tuple[str, ...], label: str, labels: tuple[str, ...]) -> None:
    from training.explaining.methods import METHODS  # noqa: PLC0415  # heavy: only for work

    for name in methods:
        if name not in METHODS:
            raise typer.BadParameter(f"{name} is none of {', '.join(METHODS)}", param_hint="--method")
    if label not in labels:
        raise typer.BadParameter(f"{label} is none of {', '.join(labels)}", param_hint="--label")


def slice_of(file: Path) -> Slice:
    """A DICOM slice in HU.

    Raises:
        BadStudy: it cannot be read, or has no HU or no pixel spacing.
    """
    from training.data.dicom_in import read_header, read_hu  # noqa: PLC0415  # heavy: only for work
    from training.data.study import BadStudy, Fault  # noqa: PLC0415  # heavy: only for work
    from training.explaining.methods import Slice  # noqa: PLC0415  # heavy: only for work

    header = read_header(file)
    if header.modality != "CT":
        raise BadStudy(file, f"is {header.modality or 'of no said modality'}, not CT", Fault.NOT_HU)
    if header.pixel_mm is None or min(header.pixel_mm) <= 0:
        raise BadStudy(file, "has no PixelSpacing", Fault.SPACING)
    return Slice(read_hu(str(file))[0], header.pixel_mm)


class _Work:
    """One slice, one label; the differentiable network is built only where a method asks for gradients."""

    def __init__(  # what one explanation is about
        self,
        one: Slice,
        network: Network,
        label: int,
        values: NDArray[np.float32],
        model: Path,
        checkpoint: Path | None,
    ) -> None:
        self._one, self._network, self._label, self._values = one, network, label, values
        self._files = (model, checkpoint)
        self._subject: Subject | None = None

    def heat(self, method: str) -> Heat:
        from training.explaining import methods  # noqa: PLC0415  # heavy: only for work

        if method == "segmentation":
            channel = self._label - 1 if self._label else None
            return methods.segmentation(self._one, self._values, self._network.grid, channel)
        if method == "shap":
            return methods.shapley(self._logits, self._one)
        if method == "integrated-gradients":
            return methods.integrated_gradients(self.subject, self._one, self._label)
        return methods.gradcam(self.subject, self._one, self._label, averaged=method == "gradcam-averaged")

    @property
    def subject(self) -> Subject:
        from training.explaining.subject import subject_of_checkpoint, subject_of_onnx  # noqa: PLC0415  # heavy: only for work

        if self._subject is None:
            model, checkpoint = self._files
            self._subject = subject_of_onnx(model) if checkpoint is None else subject_of_checkpoint(checkpoint)
        return self._subject

    def _logits(self, hu: NDArray[np.float32]) -> NDArray[np.float64]:
        from training.evaluation.figures import logit  # noqa: PLC0415  # heavy: only for work

        return logit(self._network.answers(hu, self._one.spacing_mm)[0][:, self._label])
