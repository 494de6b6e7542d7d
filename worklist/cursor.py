"""Where a page of the worklist ended: rank and StudyInstanceUID, opaque to the caller.

A place in the order, not a number: studies that move while somebody pages neither shift the next page nor repeat on it.
"""

import base64
import json
import math
from dataclasses import dataclass
from typing import Self

from contracts.errors import DecodeError


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last place already given. ``rank`` is the score as Redis prints it: 17 digits, exact."""

    rank: str
    study_instance_uid: str

    @property
    def order(self) -> tuple[float, bytes]:
        """Sorts as Redis sorts: by score, equal scores by the bytes of the member."""
        return float(self.rank), self.study_instance_uid.encode()

    def encode(self) -> str:
        """URL-safe text without padding."""
        text = json.dumps([self.rank, self.study_instance_uid], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Self:
        """Raises DecodeError on anything that ``encode`` did not make."""
        try:
            padded = text.encode("ascii") + b"=" * (-len(text) % 4)
            rank, uid = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            cursor = cls(rank, uid)
            known = isinstance(rank, str) and math.isfinite(float(rank)) and bool(uid.encode())
            known = known and cursor.encode() == text  # one place, one text
        except (ValueError, TypeError, AttributeError, RecursionError):
            known = False
        if not known:
            raise DecodeError("worklist cursor", text.encode("utf-8", "replace"))
        return cursor
