"""What the producer's pure functions may do with what comes to its doors: objects, and the bodies of STOW requests."""

from contextlib import suppress

from chaos.fuzz.parcel import unpack
from chaos.fuzz.target import Call
from contracts import events
from contracts.errors import Rejected
from contracts.scans import ScanHeaders
from contracts.settings import ProducerSettings
from producer.header import read_header
from producer.intake import TAGS, Door, Received, examine, identity
from producer.lanes import Lanes
from producer.memory import Budget
from producer.multipart import Malformed, Parts, WrongMediaType, boundary_of
from producer.reception import Outcome
from producer.stow_answer import answer, encode, media_type_for

PART_BYTES = 4 * 1024**2  # cap of one part: over it the parser drops
SHARED_BYTES = 16 * 1024**2  # of all parts in hand


def intake() -> Call:
    """An object is refused by a reason, or accepted with headers and an event that can be read again."""
    lanes = Lanes(ProducerSettings().lane_rules)

    def call(data: bytes) -> None:
        received = Received(data, Door.STOW, "stow", 1.0, "")
        with suppress(Rejected):
            accepted = examine(received, lanes)
            ScanHeaders.decode(accepted.headers.encode())
            events.decode(events.encode(accepted.arrived))
            accepted.arrived.key.decode()
        identity(data)

    return call


def header() -> Call:
    """A header is read up to the tags that are asked for, or refused."""

    def call(data: bytes) -> None:
        with suppress(Rejected):
            header = read_header(data, TAGS)
            for tag in TAGS:
                header.text(tag).encode()
                header.uid(tag).encode()
            header.short(TAGS[0])

    return call


def multipart() -> Call:
    """A body ends in outcomes or a status, and gives back every byte that it held."""

    def call(data: bytes) -> None:
        kind, accept, step, body = (*unpack(data), b"", b"", b"", b"")[:4]
        budget = Budget(SHARED_BYTES)
        outcomes = _parts(kind.decode("latin-1"), body, max(1, int(step)) if step.isdigit() else 64, budget)
        if budget.held_bytes:
            raise AssertionError(f"{budget.held_bytes} bytes of the shared budget are never given back")
        media_type = media_type_for(accept.decode("latin-1"))
        if media_type:
            encode(answer(outcomes), media_type)

    return call


def _parts(kind: str, body: bytes, step: int, budget: Budget) -> list[Outcome]:
    """As the STOW door takes a body apart: piece by piece, giving back what each part held."""
    parts: Parts | None = None
    outcomes: list[Outcome] = []
    try:
        parts = Parts(boundary_of(kind), PART_BYTES, budget)
        for at in range(0, min(len(body), step * 4096), step):
            for part in parts.feed(body[at : at + step]):
                outcomes.append(Outcome(part.refused, "", *identity(part.content)))
                budget.give(len(part.content))
        parts.finish()
    except (Malformed, WrongMediaType):
        pass
    finally:
        if parts is not None:
            parts.abandon()
    return outcomes
