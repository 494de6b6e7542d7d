"""DICOM objects for the tests, made here: small, whole, with patient data that must never leak."""

from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SECRETS = ("Testmann^Erika", "PID-4711", "19610203", "ACC-99", "Kopf nach Sturz")


def ct(pixels: bytes = b"\1\0" * 256, **changes: Any) -> Dataset:
    """A CT slice of 16 × 16 pixels in its own study, unless told otherwise."""
    image = Dataset()
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID, image.StudyInstanceUID, image.SeriesInstanceUID = (generate_uid() for _ in range(3))
    image.Modality = "CT"
    image.PatientName, image.PatientID, image.PatientBirthDate = SECRETS[:3]
    image.PatientSex = "F"
    image.AccessionNumber, image.StudyDescription = SECRETS[3:]
    image.Rows = image.Columns = 16
    image.PixelSpacing, image.SliceThickness = [0.5, 0.5], 5
    image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, 10], [1, 0, 0, 0, 1, 0]
    image.RescaleSlope, image.RescaleIntercept = 1, -1024
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.PixelData = pixels
    for name, value in changes.items():
        setattr(image, name, value)
    return image


def part10(image: Dataset, transfer_syntax: str = ExplicitVRLittleEndian, **meta: Any) -> bytes:
    """Its file, written by pydicom."""
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = transfer_syntax
    for name, value in meta.items():
        setattr(image.file_meta, name, value)
    if "PixelData" in image:
        image["PixelData"].VR = "OW"
    stream = BytesIO()
    dcmwrite(stream, image, enforce_file_format=True)
    return stream.getvalue()
