"""The answer of a store transaction: Store Instances Response Module (PS3.18 I.2), in JSON (F.2) or XML (PS3.19)."""

import json
from collections.abc import Iterable, Sequence
from typing import Any
from xml.sax.saxutils import escape

from producer.reception import Outcome
from producer.statuses import dicom_status

JSON, XML = "application/dicom+json", "application/dicom+xml"

RETRIEVE_URL = "00081190"
REFERENCED_CLASS, REFERENCED_INSTANCE, FAILURE_REASON = "00081150", "00081155", "00081197"
FAILED, REFERENCED, OTHER_FAILURES = "00081198", "00081199", "0008119A"

_KEYWORD = {
    RETRIEVE_URL: "RetrieveURL",
    REFERENCED_CLASS: "ReferencedSOPClassUID",
    REFERENCED_INSTANCE: "ReferencedSOPInstanceUID",
    FAILURE_REASON: "FailureReason",
    FAILED: "FailedSOPSequence",
    REFERENCED: "ReferencedSOPSequence",
    OTHER_FAILURES: "OtherFailuresSequence",
}
_ACCEPTED = {
    "*/*": JSON,
    "application/*": JSON,
    "application/json": JSON,
    JSON: JSON,
    XML: XML,
    "application/xml": XML,
    "text/xml": XML,
}

DataSet = dict[str, dict[str, Any]]


def media_type_for(accept: str) -> str | None:
    """The first of the client's most wanted types that we speak (RFC 9110 12.5.1); None: 406. JSON unless asked."""
    wanted = sorted(_ranges(accept or "*/*"), key=lambda entry: -entry[1])
    return next((_ACCEPTED[name] for name, quality in wanted if quality > 0 and name in _ACCEPTED), None)


def _ranges(accept: str) -> Iterable[tuple[str, float]]:
    for entry in accept.split(","):
        name, *parameters = (part.strip().lower() for part in entry.split(";"))
        quality = next((value[2:] for value in parameters if value.startswith("q=")), "1")
        yield name, float(quality) if quality.replace(".", "", 1).isdigit() else 0.0


def answer(outcomes: Sequence[Outcome]) -> DataSet:
    """Stored instances, failed ones, and failures of parts so broken that no instance can be named."""
    named = [outcome for outcome in outcomes if outcome.sop_class_uid and outcome.sop_instance_uid]
    sequences = {
        REFERENCED: [_reference(outcome) for outcome in named if outcome.stored],
        FAILED: [_reference(outcome) | _failure(outcome) for outcome in named if not outcome.stored],
        OTHER_FAILURES: [_failure(outcome) for outcome in outcomes if outcome not in named],
    }
    filled = {tag: {"vr": "SQ", "Value": items} for tag, items in sequences.items() if items}
    return {RETRIEVE_URL: {"vr": "UR"}} | filled  # type 2 and empty: nothing can be retrieved here


def _reference(outcome: Outcome) -> DataSet:
    return {
        REFERENCED_CLASS: {"vr": "UI", "Value": [outcome.sop_class_uid]},
        REFERENCED_INSTANCE: {"vr": "UI", "Value": [outcome.sop_instance_uid]},
    }


def _failure(outcome: Outcome) -> DataSet:
    return {FAILURE_REASON: {"vr": "US", "Value": [dicom_status(outcome.reason)]}}


def encode(data_set: DataSet, media_type: str) -> bytes:
    """JSON: one object, as an answer's single data set is. XML: a NativeDicomModel."""
    if media_type == JSON:
        return json.dumps(data_set).encode()
    body = "".join(_attributes(data_set))
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    space = 'xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM" xml:space="preserve"'
    return f"{head}<NativeDicomModel {space}>{body}</NativeDicomModel>".encode()


def _attributes(data_set: DataSet) -> Iterable[str]:
    for tag, attribute in sorted(data_set.items()):
        values = enumerate(attribute.get("Value", ()), start=1)
        inner = "".join(_value(number, value) for number, value in values)
        yield f'<DicomAttribute tag="{tag}" vr="{attribute["vr"]}" keyword="{_KEYWORD[tag]}">{inner}</DicomAttribute>'


def _value(number: int, value: Any) -> str:
    if isinstance(value, dict):
        return f'<Item number="{number}">{"".join(_attributes(value))}</Item>'
    return f'<Value number="{number}">{escape(str(value))}</Value>'
