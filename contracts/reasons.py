"""Why an image was refused, excluded or not analysed: one closed list.

A reason's category decides what it means for the study (design decision 8):

- REFUSED: the sender was told; nothing was stored, nothing is owed.
- EXCLUDED: never meant for reading as a slice (localisers, derived images): does not count.
- OUT_OF_SCOPE: an honest image that no model serves: the image is *not analysed*; a study with nothing else is too.
- FAILED: an image in scope that we owe a score and could not give: forbids *not flagged*.
- STUDY: says why a whole study is not analysed.
"""

from enum import StrEnum


class Category(StrEnum):
    """What a reason means for the study it belongs to."""

    REFUSED = "refused"
    EXCLUDED = "excluded"
    OUT_OF_SCOPE = "out_of_scope"
    FAILED = "failed"
    STUDY = "study"


class Reason(StrEnum):
    """Closed list; the value is what goes into records, metrics and the API."""

    # producer: refused at the door
    UNPARSABLE = "unparsable"
    MISSING_UIDS = "missing_uids"
    SOP_CLASS_MISMATCH = "sop_class_mismatch"
    SOP_INSTANCE_MISMATCH = "sop_instance_mismatch"
    STUDY_MISMATCH = "study_mismatch"
    TOO_LARGE = "too_large"
    TOO_COMPLEX = "too_complex"
    NOT_ALLOWED = "not_allowed"
    BROKER_AWAY = "broker_away"
    BUFFER_FULL = "buffer_full"
    TOO_MANY = "too_many"
    TOO_SLOW = "too_slow"
    PROTOCOL = "protocol"
    STORE_AWAY = "store_away"

    # excluded
    LOCALIZER = "localizer"
    DERIVED = "derived"
    SECONDARY_CAPTURE = "secondary_capture"
    NOT_AN_IMAGE = "not_an_image"

    # out of scope
    MODALITY_OUT_OF_SCOPE = "modality_out_of_scope"
    BODY_PART_OUT_OF_SCOPE = "body_part_out_of_scope"
    ORIENTATION_OUT_OF_SCOPE = "orientation_out_of_scope"
    SPACING_OUT_OF_SCOPE = "spacing_out_of_scope"
    THICKNESS_OUT_OF_SCOPE = "thickness_out_of_scope"
    MATRIX_OUT_OF_SCOPE = "matrix_out_of_scope"
    CONTENT_OUT_OF_SCOPE = "content_out_of_scope"

    # failed
    GEOMETRY_MISSING = "geometry_missing"
    UNITS_UNKNOWN = "units_unknown"
    COMPRESSED_TOO_FAR = "compressed_too_far"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported_transfer_syntax"
    PIXELS_UNDECODABLE = "pixels_undecodable"
    PIXELS_OVER_BUDGET = "pixels_over_budget"
    PAYLOAD_MISSING = "payload_missing"
    RECORD_UNREADABLE = "record_unreadable"
    RECORD_LOST = "record_lost"
    MODEL_REFUSED = "model_refused"
    MODEL_ANSWER_INVALID = "model_answer_invalid"
    DELAYED = "delayed"
    DISCARDED = "discarded"

    # study
    NOTHING_IN_SCOPE = "nothing_in_scope"
    SAME_UID_OTHER_PIXELS = "same_uid_other_pixels"
    SAME_STUDY_OTHER_PATIENT = "same_study_other_patient"

    @property
    def category(self) -> Category:
        """What this reason means for the study."""
        return _CATEGORY[self]

    @property
    def sentence(self) -> str:
        """The reason in words for a person."""
        return SENTENCES[self]


SENTENCES: dict[Reason, str] = {
    Reason.UNPARSABLE: "The object is not readable DICOM.",
    Reason.MISSING_UIDS: "The object lacks a Study, Series or SOP Instance UID.",
    Reason.SOP_CLASS_MISMATCH: "The data set's SOPClassUID differs from the one announced.",
    Reason.SOP_INSTANCE_MISMATCH: "The data set's SOPInstanceUID differs from the one announced.",
    Reason.STUDY_MISMATCH: "The object does not belong to the study named in the request.",
    Reason.TOO_LARGE: "The object is larger than this service takes; it will not be taken when sent again.",
    Reason.TOO_COMPLEX: "The object has more elements, or sequences nested deeper, than this service takes.",
    Reason.NOT_ALLOWED: "The sender is not on the list of allowed peers.",
    Reason.BROKER_AWAY: "The message broker did not acknowledge the object; send it again later.",
    Reason.BUFFER_FULL: "The send buffer is full; send the object again later.",
    Reason.TOO_MANY: "The sender has as many connections, or requests, as one sender may have; try again later.",
    Reason.TOO_SLOW: "The sender was silent, or sent too slowly, for too long.",
    Reason.PROTOCOL: "The sender broke the protocol, or a limit of it.",
    Reason.STORE_AWAY: "The store for large objects did not take the object; send it again later.",
    Reason.LOCALIZER: "A localiser (scout) is not read as a slice.",
    Reason.DERIVED: "A derived or reformatted image is not scored.",
    Reason.SECONDARY_CAPTURE: "A secondary capture is not scored.",
    Reason.NOT_AN_IMAGE: "The object holds no pixel data.",
    Reason.MODALITY_OUT_OF_SCOPE: "No model serves this modality.",
    Reason.BODY_PART_OUT_OF_SCOPE: "No model serves this body part.",
    Reason.ORIENTATION_OUT_OF_SCOPE: "No model serves this slice orientation.",
    Reason.SPACING_OUT_OF_SCOPE: "The pixel spacing or field of view is outside what the model serves.",
    Reason.THICKNESS_OUT_OF_SCOPE: "The slice thickness is outside what the model serves.",
    Reason.MATRIX_OUT_OF_SCOPE: "The matrix size is outside what the model serves.",
    Reason.CONTENT_OUT_OF_SCOPE: "The pixels do not look like what the model serves.",
    Reason.GEOMETRY_MISSING: "Pixel spacing, orientation or position is missing.",
    Reason.UNITS_UNKNOWN: "The pixel values are not in Hounsfield units.",
    Reason.COMPRESSED_TOO_FAR: "Lossy compression has left too little of the image to judge it.",
    Reason.UNSUPPORTED_TRANSFER_SYNTAX: "No decoder for this transfer syntax.",
    Reason.PIXELS_UNDECODABLE: "The pixel data could not be decoded.",
    Reason.PIXELS_OVER_BUDGET: "Decoding would exceed the memory budget.",
    Reason.PAYLOAD_MISSING: "The stored payload of this image is gone or differs from its digest.",
    Reason.RECORD_UNREADABLE: "The record on the topic could not be read.",
    Reason.RECORD_LOST: "The image left the topic before it could be analysed.",
    Reason.MODEL_REFUSED: "The inference server refused the image.",
    Reason.MODEL_ANSWER_INVALID: "The model's answer was not a valid score.",
    Reason.DELAYED: "The image was not analysed before the study's deadline.",
    Reason.DISCARDED: "A person discarded the failed image.",
    Reason.NOTHING_IN_SCOPE: "No image of the study can be scored.",
    Reason.SAME_UID_OTHER_PIXELS: "The same SOP Instance UID arrived with other pixels: please review.",
    Reason.SAME_STUDY_OTHER_PATIENT: "Images of this study name different patients (Patient ID): please review.",
}

_FIRST = {
    Category.REFUSED: Reason.UNPARSABLE,
    Category.EXCLUDED: Reason.LOCALIZER,
    Category.OUT_OF_SCOPE: Reason.MODALITY_OUT_OF_SCOPE,
    Category.FAILED: Reason.GEOMETRY_MISSING,
    Category.STUDY: Reason.NOTHING_IN_SCOPE,
}


def _categories() -> dict[Reason, Category]:
    """Reasons are declared in category order; each category begins at its first reason."""
    starts = {reason: category for category, reason in _FIRST.items()}
    table: dict[Reason, Category] = {}
    current = Category.REFUSED
    for reason in Reason:
        current = starts.get(reason, current)
        table[reason] = current
    return table


_CATEGORY = _categories()
