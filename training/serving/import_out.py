"""Somebody else's model into the repository: what it is, whether it may come in, and what is written of it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError as NotProtobuf  # type: ignore[import-untyped]  # publishes no types

from contracts.declaration import FILE, Declaration, Tensor, read_declaration
from contracts.errors import ModelRefused
from contracts.tensors import MODELS, TensorSpec
from training.networks import blast_ct
from training.serving.export_out import write_version
from training.serving.graph import problems
from training.serving.jail_call import converted
from training.serving.monai_bundle import METADATA, PROGRAM, WEIGHTS, declared_by

LARGEST_BYTES = 2 * 1024**3  # what one protobuf can hold


class Kind(StrEnum):
    """What can be imported."""

    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"
    MONAI_BUNDLE = "monai-bundle"
    BLAST_CT = "blast-ct"


BLAST_DECLARATION = Declaration(
    name="blast_ct",
    inputs=(Tensor(TensorSpec("VOLUME", "FP32", (1, 110, 110, 110)), (1.0, 1.0, 1.0), (-15.0, 100.0), (-1.0, 1.0)),),
    outputs=(Tensor(TensorSpec("CLASSES", "FP32", (5, 30, 30, 30)), (1.0, 1.0, 1.0)),),
    labels=blast_ct.CLASSES,
    facts={"origin": "biomedia-mira/blast-ct", "licence": "Apache-2.0"},
)


def import_model(source: Path, kind: Kind | None, declaration: Path | None, models: Path, version: int) -> Declaration:
    """Write ``source`` as a version of the model that its declaration names.

    Raises:
        ModelRefused: a pickle, or not what is declared, or nothing an engine of ours runs, or the version is there.
    """
    kind = kind or kind_of(source)
    declared = _declared(source, kind, declaration)
    folder = models / declared.name / str(version)
    if folder.exists():
        raise ModelRefused(f"{folder} is there already: a version is never overwritten, import it as another")
    _refuse_foreign_contract(source, declared)
    with tempfile.TemporaryDirectory(prefix="triage-import-") as scratch:
        graph = Path(scratch) / "model.onnx"
        _graph(source, kind, declared, graph)
        found = problems(_loaded(graph, source), declared)
        if found:
            raise ModelRefused(f"{source}: {'; '.join(found)}")
        first = not any(path.name.isdigit() for path in folder.parent.glob("*"))
        folder.mkdir(parents=True)
        shutil.copyfile(graph, folder / "model.onnx")
    facts = {**declared.facts, "format": kind.value, "source_sha256": _digest(source)}
    write_version(replace(declared, facts=facts), folder, serve=first)
    return declared


def kind_of(source: Path) -> Kind:
    """By content, not by name.

    Raises:
        ModelRefused: a pickle, or nothing that is known.
    """
    if source.is_dir():
        if (source / METADATA).is_file():
            return Kind.MONAI_BUNDLE
        raise ModelRefused(f"{source} is a folder without {METADATA}: no MONAI bundle")
    if not source.is_file():
        raise ModelRefused(f"There is no file {source}.")
    if zipfile.is_zipfile(source):
        return _kind_of_archive(source)
    with source.open("rb") as opened:
        start = opened.read(2)
    if start[:1] == b"\x80":
        raise ModelRefused(f"{source} is a pickle: opening one runs what is in it. {_INSTEAD}")
    return Kind.ONNX


_INSTEAD = "Export it as ONNX or TorchScript where it comes from; a BLAST-CT state dict is imported with --as blast-ct."


def _kind_of_archive(source: Path) -> Kind:
    with zipfile.ZipFile(source) as archive:
        inner = [name.split("/", 1)[1] for name in archive.namelist() if "/" in name]
    if any(name.startswith("code/") for name in inner) and "constants.pkl" in inner:
        return Kind.TORCHSCRIPT
    if "data.pkl" in inner:
        raise ModelRefused(f"{source} is a pickle in a PyTorch archive: opening one may run what is in it. {_INSTEAD}")
    raise ModelRefused(f"{source} is an archive of no model that can be imported.")


def _declared(source: Path, kind: Kind, declaration: Path | None) -> Declaration:
    """The file that was named, else the one beside the model, else what the format itself says."""
    beside = source / FILE if source.is_dir() else source.with_suffix(".toml")
    file = declaration or (beside if beside.is_file() else None)
    if file is not None:
        try:
            return read_declaration(file.read_text("utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as problem:
            raise ModelRefused(f"{file} cannot be read: {problem}") from problem
    if kind is Kind.BLAST_CT:
        return BLAST_DECLARATION
    if kind is Kind.MONAI_BUNDLE:
        return declared_by(source, "".join(c if c.isalnum() else "_" for c in source.resolve().name.lower()))
    raise ModelRefused(f"{source} needs a declaration of its tensors beside it: {beside} (docs/models.md)")


def _refuse_foreign_contract(source: Path, declared: Declaration) -> None:
    """A name of ours promises our tensors: scoring would ask it."""
    ours = MODELS.get(declared.name)
    if ours is not None and (declared.spec.inputs, declared.spec.outputs) != (ours.inputs, ours.outputs):
        raise ModelRefused(
            f"{source}: {declared.name} is asked by scoring and must have its tensors (contracts/tensors.py)"
        )


def _graph(source: Path, kind: Kind, declared: Declaration, target: Path) -> None:
    if kind is Kind.ONNX:
        _checked_size(source)
        shutil.copyfile(source, target)
    elif kind is Kind.MONAI_BUNDLE and (source / PROGRAM).is_file():
        converted("torchscript", source / PROGRAM, declared.text(), target)
    elif kind is Kind.MONAI_BUNDLE:
        if not (source / WEIGHTS).is_file():
            raise ModelRefused(f"{source} holds neither {PROGRAM} nor {WEIGHTS}")
        converted("monai-weights", source / WEIGHTS, declared.text(), target)
    else:
        converted(kind.value, source, declared.text(), target)


def _loaded(graph: Path, source: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(graph, load_external_data=False)
        if not any(weight.external_data for weight in model.graph.initializer):
            onnx.checker.check_model(model, full_check=True)
    except (NotProtobuf, onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as problem:
        told = " ".join(str(problem).split())[:300]
        raise ModelRefused(f"{source} is no valid ONNX graph: {told}") from problem
    return model


def _checked_size(source: Path) -> None:
    if source.stat().st_size > LARGEST_BYTES:
        raise ModelRefused(f"{source} is larger than the {LARGEST_BYTES} bytes that one ONNX file holds")


def _digest(source: Path) -> str:
    """Of the file, or of all files of a bundle in the order of their names."""
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest() if source.is_dir() else hashlib.sha256(source.read_bytes()).hexdigest()
