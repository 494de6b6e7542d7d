"""Deflated data sets (PS3.5 A.5), inflated within a ratio, a size and a budget, checked while they grow."""

import zlib
from io import BytesIO

from contracts.errors import Rejected
from contracts.reasons import Reason
from producer.caps import Caps, Take

FEED_BYTES = 64 * 1024  # what the machine has not used of a piece is copied: pieces are small
GROW_BYTES = 1024 * 1024  # what is taken from the budget at a time
RATIO_SLACK_BYTES = 1024  # an empty object of few bytes may well be all zeros


def inflated(part10: bytes, start: int, caps: Caps, take: Take) -> bytes:
    """The data set that begins deflated at ``start``, in one buffer.

    Raises Rejected: UNPARSABLE where it is not deflated, TOO_LARGE beyond a cap, and whatever ``take`` objects.
    """
    limit = min(caps.inflated_bytes, caps.inflate_ratio * (len(part10) - start) + RATIO_SLACK_BYTES)
    try:
        return _inflate(memoryview(part10)[start:], limit, take)
    except zlib.error:
        raise Rejected(Reason.UNPARSABLE, "not deflated") from None


def _inflate(view: memoryview, limit: int, take: Take) -> bytes:
    machine, grown = zlib.decompressobj(-zlib.MAX_WBITS), BytesIO()
    for at in range(0, len(view), FEED_BYTES):
        waiting: bytes | memoryview = view[at : at + FEED_BYTES]
        while waiting and not machine.eof:  # at the end of the stream the tail stays as it was, whatever is asked
            piece = machine.decompress(waiting, GROW_BYTES)
            take(len(piece))
            grown.write(piece)
            if grown.tell() > limit:
                raise Rejected(Reason.TOO_LARGE, "inflates beyond the cap")
            waiting = machine.unconsumed_tail
        if machine.eof:
            break
    return grown.getvalue()
