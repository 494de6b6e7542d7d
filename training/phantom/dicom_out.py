"""A phantom study as files: a CT series as a scanner sends it, the truth as DICOM SEG and JSON, a sheet to look at.

Every name says SYNTHETIC; UIDs are a function of the seed, so two runs write the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from highdicom.sr.coding import CodedConcept
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from training.data.study import KINDS
from training.evaluation.pictures import sheet, tile
from training.phantom.lesions import CHANNEL_OF
from training.phantom.series import DrawnSeries, SeriesPlan
from training.recipe import GENERATOR_VERSION

FILES_VERSION = 1  # raise it when the same pixels are written otherwise
NOTICE = "SYNTHETIC: made by a program, of no patient. Not for diagnosis."
SERIES, SEG, TRUTH, SHEET = "ct", "truth.dcm", "truth.json", "sheet.png"
SHEET_TILES, SHEET_PX = 24, 256
# SNOMED CT (PS3.16, CID 7160 and its kin): what a segment shows.
CATEGORY = CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure")
TYPES = {
    "intraparenchymal": CodedConcept("274100004", "SCT", "Cerebral hemorrhage"),
    "subdural_epidural": CodedConcept("50960005", "SCT", "Hemorrhage"),
    "subarachnoid": CodedConcept("21454007", "SCT", "Subarachnoid hemorrhage"),
    "intraventricular": CodedConcept("23276006", "SCT", "Intraventricular hemorrhage"),
    "mass": CodedConcept("4147007", "SCT", "Mass"),
}


def study_uid(seed: int) -> str:
    """StudyInstanceUID of this seed's study."""
    return _uid(seed, "study")


def is_written(folder: Path, told: dict[str, Any]) -> bool:
    """Whether this very study lies there, whole: the side file is written last."""
    try:
        return bool(json.loads((folder / TRUTH).read_text("utf-8"))["made_with"] == told)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def made_with(plan: SeriesPlan) -> dict[str, Any]:
    """What decides the bytes: a plan is a function of it."""
    digest = hashlib.sha256(repr(plan).encode()).hexdigest()[:16]
    return {"generator": GENERATOR_VERSION, "files": FILES_VERSION, "plan": digest}


def write_study(drawn: DrawnSeries, series: Path, folder: Path) -> dict[str, Any]:
    """CT images into `series`, truth and sheet into `folder`; returns the side file's content."""
    series.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    images = images_of(drawn)
    for nth, image in enumerate(images):
        image.save_as(series / f"{nth + 1:04d}.dcm", enforce_file_format=True)
    first = images[: len(drawn.plan.z_mm)]
    seg = segmentation(drawn, first)
    if seg is not None:
        seg.save_as(folder / SEG)
    contact_sheet(drawn).save(folder / SHEET)
    told = side_record(drawn)
    (folder / TRUTH).write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    return told


def images_of(drawn: DrawnSeries) -> list[FileDataset]:
    """The series' images, feet first; what the scanner sent twice comes again at the end, under UIDs of its own."""
    common = _common(drawn.plan)
    kept = [_image(drawn, common, nth, nth) for nth in range(len(drawn.plan.z_mm))]
    return kept + [_image(drawn, common, nth, len(kept) + again) for again, nth in enumerate(drawn.plan.repeated)]


def _uid(seed: int, *parts: str) -> str:
    told = [f"lesion-triage phantom {GENERATOR_VERSION}", str(seed), *parts]
    return str(generate_uid(entropy_srcs=told))


def _common(plan: SeriesPlan) -> Dataset:
    """Patient, study, series, equipment and frame of reference modules (PS3.3 A.3.3)."""
    facts, day = plan.facts, f"{2020 + plan.seed % 6}{1 + plan.seed % 12:02d}{1 + plan.seed % 28:02d}"
    common = Dataset()
    common.SpecificCharacterSet = "ISO_IR 100"
    common.SOPClassUID = CTImageStorage
    common.PatientName = f"SYNTHETIC^PHANTOM^{plan.seed}"
    common.PatientID = f"SYNTHETIC-{plan.seed}"
    common.PatientAge = f"{int(facts.age_years or 0):03d}Y"
    common.PatientBirthDate = f"{int(day[:4]) - int(facts.age_years or 0)}0101"
    common.PatientSex = facts.sex
    common.AccessionNumber, common.StudyID, common.ReferringPhysicianName = f"S{plan.seed}"[:16], "1", ""
    common.StudyDate = common.SeriesDate = common.AcquisitionDate = common.ContentDate = day
    common.StudyTime = common.SeriesTime = common.AcquisitionTime = common.ContentTime = f"{plan.seed % 24:02d}3000"
    common.StudyDescription = "SYNTHETIC CT HEAD WO CONTRAST"
    common.SeriesDescription = f"SYNTHETIC HEAD {plan.scanner.slab_mm:g} {facts.kernel}"
    common.ImageComments = NOTICE
    common.StudyInstanceUID = study_uid(plan.seed)
    common.SeriesInstanceUID = _uid(plan.seed, "series", str(made_with(plan)["plan"]))
    common.FrameOfReferenceUID = _uid(plan.seed, "frame of reference")
    common.PositionReferenceIndicator, common.SeriesNumber = "OM", 2
    common.Modality, common.BodyPartExamined, common.PatientPosition = "CT", "HEAD", "HFS"
    common.Manufacturer, common.ManufacturerModelName = "SYNTHETIC", facts.scanner
    common.DeviceSerialNumber, common.SoftwareVersions = "0", f"phantom {GENERATOR_VERSION}"
    _acquisition(common, plan)
    return common


def _acquisition(common: Dataset, plan: SeriesPlan) -> None:
    """CT image, image plane and image pixel modules (PS3.3 C.8.2.1, C.7.6.2, C.7.6.3)."""
    leaning = np.deg2rad(plan.gantry_deg)
    common.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    common.KVP, common.XRayTubeCurrent, common.ExposureTime = str(plan.tube_kv), plan.tube_ma, 1000
    common.ConvolutionKernel = plan.facts.kernel
    common.GantryDetectorTilt = _decimal(plan.gantry_deg)
    common.PixelSpacing = [_decimal(plan.pitch_mm)] * 2
    common.SliceThickness = _decimal(plan.scanner.slab_mm)
    common.SpacingBetweenSlices = _decimal(plan.spacing_mm)
    common.ReconstructionDiameter = _decimal(plan.pitch_mm * plan.matrix)
    common.ImageOrientationPatient = ["1", "0", "0", "0", _decimal(np.cos(leaning)), _decimal(np.sin(leaning))]
    common.SamplesPerPixel, common.PhotometricInterpretation = 1, "MONOCHROME2"
    common.Rows = common.Columns = plan.matrix
    common.BitsAllocated, common.BitsStored, common.HighBit = 16, 16, 15
    common.PixelRepresentation = int(plan.rescale.signed)
    common.RescaleSlope, common.RescaleIntercept = _decimal(plan.rescale.slope), _decimal(plan.rescale.intercept)
    common.RescaleType = "HU"
    common.WindowCenter, common.WindowWidth = "40", "80"
    if plan.rescale.padding_hu is not None:
        common.add_new(
            "PixelPaddingValue", "SS" if plan.rescale.signed else "US", _stored(plan, plan.rescale.padding_hu)
        )


def _decimal(value: float) -> str:
    """A DS of at most 16 characters."""
    return f"{value:.6f}".rstrip("0").rstrip(".") if abs(value) > 5e-7 else "0"


def _stored(plan: SeriesPlan, hu: float) -> int:
    return round((hu - plan.rescale.intercept) / plan.rescale.slope)


def _image(drawn: DrawnSeries, common: Dataset, nth: int, number: int) -> FileDataset:
    plan = drawn.plan
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = _uid(plan.seed, "image", common.SeriesInstanceUID, str(number))
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.update(common)
    half_mm, leaning = (plan.matrix - 1) / 2 * plan.pitch_mm, np.deg2rad(plan.gantry_deg)
    corner = (-half_mm, -half_mm * np.cos(leaning), plan.z_mm[nth] - half_mm * np.sin(leaning))
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.InstanceNumber, image.AcquisitionNumber = number + 1, 1
    image.ImagePositionPatient = [_decimal(at) for at in corner]
    image.SliceLocation = _decimal(plan.z_mm[nth])
    image.PixelData = _pixels(plan, drawn.study.hu[nth]).tobytes()
    return image


def _pixels(plan: SeriesPlan, hu: NDArray[np.int16]) -> NDArray[np.int16] | NDArray[np.uint16]:
    rescale = plan.rescale
    stored = np.round((hu.astype(np.float32) - rescale.intercept) / rescale.slope)
    if rescale.padding_hu is not None:
        at = np.arange(plan.matrix) - (plan.matrix - 1) / 2
        stored[np.hypot(at[:, None], at[None, :]) > plan.matrix / 2] = _stored(plan, rescale.padding_hu)
    return stored.astype("<i2") if rescale.signed else np.maximum(stored, 0).astype("<u2")


def _masks(drawn: DrawnSeries) -> NDArray[np.uint8]:
    return np.asarray(drawn.study.truth.masks, np.uint8)  # a phantom's truth is always whole


def segmentation(drawn: DrawnSeries, images: Sequence[Dataset]) -> highdicom.seg.Segmentation | None:
    """One segment for each kind that is seen; None: no voxel of a lesion, of which DICOM has no SEG."""
    masks = _masks(drawn)
    present = [nth for nth in range(len(KINDS)) if ((masks >> nth) & 1).any()]
    if not present:
        return None
    seed = drawn.plan.seed
    seg = highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=np.stack([(masks >> nth) & 1 for nth in present], -1),
        segmentation_type="BINARY",
        segment_descriptions=[_segment(number, KINDS[nth].value) for number, nth in enumerate(present, 1)],
        series_instance_uid=_uid(seed, "truth series"),
        series_number=900,
        sop_instance_uid=_uid(seed, "truth", str(made_with(drawn.plan)["plan"])),
        instance_number=1,
        manufacturer="SYNTHETIC",
        manufacturer_model_name="lesion-triage phantom",
        software_versions=str(GENERATOR_VERSION),
        device_serial_number="0",
        content_label="PLANTED",
        series_description="SYNTHETIC planted lesions",
    )
    return _of_no_time(seg, images[0], _uid(seed, "dimensions"))


def _of_no_time(seg: highdicom.seg.Segmentation, image: Dataset, dimensions: str) -> highdicom.seg.Segmentation:
    """The library writes the clock and a UID of its own into it; two runs must write the same bytes."""
    for module in ("Series", "Content", "InstanceCreation"):
        setattr(seg, f"{module}Date", image.ContentDate)
        setattr(seg, f"{module}Time", image.ContentTime)
    for equipment in seg.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = image.ContentDate + image.ContentTime
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    return seg


def _segment(number: int, label: str) -> highdicom.seg.SegmentDescription:
    maker = highdicom.AlgorithmIdentificationSequence(
        name="lesion-triage phantom",
        family=CodedConcept("123109", "DCM", "Manual Processing"),
        version=str(GENERATOR_VERSION),
    )
    return highdicom.seg.SegmentDescription(number, label, CATEGORY, TYPES[label], "AUTOMATIC", maker)


def side_record(drawn: DrawnSeries) -> dict[str, Any]:
    """The side file: seed, what was drawn, each lesion with volume, density, place and slices."""
    plan, study = drawn.plan, drawn.study
    return {
        "notice": NOTICE,
        "seed": plan.seed,
        "made_with": made_with(plan),
        "study_instance_uid": study_uid(plan.seed),
        "slices": len(plan.z_mm),
        "missing_slices": plan.missing,
        "repeated_slices": list(plan.repeated),
        "slice_mm": plan.scanner.slab_mm,
        "spacing_mm": plan.spacing_mm,
        "pitch_mm": plan.pitch_mm,
        "gantry_deg": plan.gantry_deg,
        "scanner_family": plan.scanner.family,
        "kernel": plan.facts.kernel,
        "age_years": plan.facts.age_years,
        "sex": plan.facts.sex,
        "any": study.truth.any,
        "lesions": [_lesion(drawn, nth) for nth in range(len(plan.lesions))],
        "labels_by_slice": np.asarray(study.truth.by_slice).tolist(),  # any, then the five kinds; 0.5: only grazed
    }


def _lesion(drawn: DrawnSeries, nth: int) -> dict[str, Any]:
    """`slices` are the first and last index from the feet, `position_mm` is the centre in patient coordinates (LPS)."""
    plan, mask, lesion = drawn.plan, drawn.each[nth], drawn.plan.lesions[nth]
    where = np.flatnonzero(mask.any((1, 2)))
    told = {"kind": lesion.kind, "label": KINDS[CHANNEL_OF[lesion.kind]].value, "planned_hu": round(lesion.hu, 1)}
    if not len(where):
        return {**told, "volume_ml": 0.0, "median_hu": None, "position_mm": None, "slices": None}
    voxel_ml = plan.pitch_mm**2 * plan.spacing_mm * np.cos(np.deg2rad(plan.gantry_deg)) / 1000
    middle = np.argwhere(mask).mean(0)
    row, column = ((at - (plan.matrix - 1) / 2) * plan.pitch_mm for at in middle[1:])
    z = float(np.interp(middle[0], np.arange(len(plan.z_mm)), plan.z_mm)) + row * np.sin(np.deg2rad(plan.gantry_deg))
    place = (column, row * np.cos(np.deg2rad(plan.gantry_deg)), z)
    return {
        **told,
        "volume_ml": round(float(mask.sum() * voxel_ml), 3),
        "median_hu": round(float(np.median(drawn.study.hu[mask])), 1),
        "position_mm": [round(float(at), 1) for at in place],
        "slices": [int(where[0]), int(where[-1])],
    }


def contact_sheet(drawn: DrawnSeries) -> Image.Image:
    """Up to SHEET_TILES slices in the brain window, planted lesions outlined in green, feet first."""
    hu, masks = drawn.study.hu, _masks(drawn)
    shown = np.unique(np.linspace(0, len(hu) - 1, min(SHEET_TILES, len(hu))).round().astype(int))
    step = max(1, hu.shape[1] // SHEET_PX)
    tiles = [tile(_thinned(hu[nth], step), masks[nth, ::step, ::step] > 0, None) for nth in shown]
    return sheet(tiles, [f"{nth + 1}  z {drawn.plan.z_mm[nth]:.0f}" for nth in shown])


def _thinned(plane: NDArray[np.int16], step: int) -> NDArray[np.float32]:
    """Mean of step × step pixels."""
    side = plane.shape[0] // step * step
    blocks = plane[:side, :side].astype(np.float32).reshape(side // step, step, side // step, step)
    return np.asarray(blocks.mean((1, 3)))
