"""A multipart/related body (RFC 2387), taken apart as it streams in: one part in memory at a time, within a cap."""

from dataclasses import dataclass, field
from io import BytesIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header

from contracts.errors import TriageError
from contracts.reasons import Reason
from contracts.settings import LimitSettings
from producer.memory import Room

DICOM = "application/dicom"
DEFAULT = LimitSettings()


class Malformed(TriageError):
    """Not a multipart body: 400."""


class TooMany(TriageError):
    """More parts than one request may have: 413."""


class WrongMediaType(TriageError):
    """A media type that this service does not take: 415."""


@dataclass(frozen=True, slots=True)
class Part:
    """One finished part. ``refused``: why its content was dropped while it came in.

    Its length is held in the shared budget; who settles the part gives it back.
    """

    content: bytes = field(repr=False)
    refused: Reason | None = None


def boundary_of(content_type: str) -> bytes:
    """The boundary of a request that carries DICOM instances (PS3.18 10.5.2, 8.6.1.2).

    Raises WrongMediaType, also for metadata with bulk data (application/dicom+json, +xml); Malformed without boundary.
    """
    media_type, options = parse_options_header(content_type)
    inner = options.get(b"type", DICOM.encode()).strip().lower()
    if media_type.lower() != b"multipart/related" or inner != DICOM.encode():
        raise WrongMediaType(f"the body must be multipart/related; type={DICOM}")
    if not options.get(b"boundary"):
        raise Malformed("no boundary")
    return options[b"boundary"]


class Parts:
    """Feed it the body piece by piece; each call gives the parts that piece finished."""

    def __init__(self, boundary: bytes, largest_bytes: int, budget: Room, limits: LimitSettings = DEFAULT) -> None:
        """``limits``: how many parts, and how many headers of which size each."""
        self._largest_bytes, self._budget, self._most, self._count = largest_bytes, budget, limits.stow_parts, 0
        self._content = BytesIO()  # gives its one buffer away: a part is never in memory twice
        self._size_bytes = 0
        self._refused: Reason | None = None
        self._name, self._value = b"", b""
        self._done: list[Part] = []
        callbacks = {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_header_begin": self._header_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
        }
        try:
            self._parser = MultipartParser(
                boundary, callbacks, max_header_count=limits.part_headers, max_header_size=limits.part_header_bytes
            )
        except FormParserError:
            raise Malformed("the announced boundary is too long (RFC 2046 5.1.1: at most 70 characters)") from None

    def feed(self, piece: bytes) -> list[Part]:
        """Raises Malformed, TooMany, or WrongMediaType on a part that is not application/dicom."""
        try:
            self._parser.write(piece)
        except FormParserError:
            raise Malformed(
                "its parts are not divided by the announced boundary, or their headers are broken, many or long"
            ) from None
        done, self._done = self._done, []
        return done

    def finish(self) -> None:
        """Raises Malformed where the closing boundary never came."""
        if self._parser.state != MultipartState.END:
            raise Malformed("the body ends before its closing boundary")

    def abandon(self) -> None:
        """Gives back what the part in hand holds: the request is over, however it ended."""
        for part in self._done:
            self._budget.give(len(part.content))
        self._done = []
        self._drop(None)

    def _begin(self) -> None:
        self._count += 1
        if self._count > self._most:
            raise TooMany(f"{self._most} parts")
        self._content, self._size_bytes, self._refused = BytesIO(), 0, None

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._refused is not None:
            return
        if self._size_bytes + end - start > self._largest_bytes:
            self._drop(Reason.TOO_LARGE)
        elif not self._budget.take(end - start):
            self._drop(Reason.BUFFER_FULL)
        else:
            self._size_bytes += end - start
            self._content.write(memoryview(data)[start:end])

    def _drop(self, reason: Reason | None) -> None:
        self._budget.give(self._size_bytes)
        self._content, self._size_bytes, self._refused = BytesIO(), 0, reason

    def _end(self) -> None:
        self._done.append(Part(self._content.getvalue(), self._refused))
        self._content, self._size_bytes = BytesIO(), 0

    def _header_begin(self) -> None:
        self._name, self._value = b"", b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-type":
            media_type, _ = parse_options_header(self._value)
            if media_type.lower() != DICOM.encode():
                raise WrongMediaType(f"every part must be {DICOM}")
