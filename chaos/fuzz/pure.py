"""Targets that are pure functions: what each is given, and what it may do with it. Anything else is a crash.

Each has one grammar and a ``make`` that builds the function once; the function raises what is not declared.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from threading import Semaphore
from typing import Any
from urllib.parse import unquote

from chaos.fuzz.dice import Dice
from chaos.fuzz.doubles import FaultsTold, OpenEntrance, SmallView, SoundModel, StoredStudies, TakingLog
from chaos.fuzz.grammar import http, part10, records, stow
from chaos.fuzz.parcel import unpack
from chaos.fuzz.samples_in import all_samples
from chaos.fuzz.target import Call, Target
from contracts import events
from contracts.errors import DecodeError, Rejected
from contracts.hooks import Silent
from contracts.names import Lane, Topics, partition_of
from contracts.scans import Place, Scan, ScanHeaders
from contracts.settings import FlaggingSettings, ProducerSettings, ScoringSettings, WorklistSettings
from contracts.worklist import WorklistItem
from producer.header import read_header
from producer.intake import TAGS, Door, Received, examine, identity
from producer.lanes import Lanes
from producer.memory import Budget
from producer.multipart import Malformed, Parts, WrongMediaType, boundary_of
from producer.reception import Outcome
from producer.stow_answer import answer, encode, media_type_for
from worker.flagging.study import Logged, Study
from worker.flagging.view import PartitionFold, Raw, Taken
from worker.scoring.analysis import Analysis, Work
from worker.scoring.custody import Custody, Fetched
from worker.scoring.decode import Budget as DecodeBudget
from worker.scoring.decoders_call import Decoders
from worker.scoring.holding import Holding
from worker.scoring.kafka_out import Publisher
from worker.scoring.settling import Settling, Tools
from worklist.cursor import Cursor
from worklist.http_out import Desk, make_app
from worklist.live import Hub
from worklist.reading import Reading
from worklist.view import id_order

PART_BYTES = 4 * 1024**2  # cap of one part: over it the parser drops
SHARED_BYTES = 16 * 1024**2  # of all parts in hand
APPENDED_S = 1_800_000_000.0


@lru_cache
def _objects() -> Callable[[Dice], bytes]:
    return part10.grammar_of(all_samples())


def _part10(dice: Dice) -> bytes:
    return _objects()(dice)


# Producer


def _intake() -> Call:
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


def _header() -> Call:
    def call(data: bytes) -> None:
        with suppress(Rejected):
            header = read_header(data, TAGS)
            for tag in TAGS:
                header.text(tag).encode()
                header.uid(tag).encode()
            header.short(TAGS[0])

    return call


def _multipart() -> Call:
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


# Scoring


def _budget() -> DecodeBudget:
    settings = ScoringSettings()
    return DecodeBudget(settings.decode_budget_bytes, settings.frame_budget_bytes)


@lru_cache
def _analyser() -> Analysis:
    """As scoring has it: what is compressed goes to processes that can be killed."""
    return Analysis(_budget(), Semaphore(1), Silent(), Decoders(ScoringSettings(), Silent()))


def _analysis() -> Call:
    analysis, model = _analyser(), SoundModel()

    def call(data: bytes) -> None:
        told = list(analysis.events(Work(_headers_of(data), data, Place("scans.routine", 0, 0), 1.0), model.ask))
        if not told:
            raise AssertionError("an image without an event would never be settled")
        for event in told:
            events.decode(events.encode(event))

    return call


def _headers_of(data: bytes) -> ScanHeaders:
    """As the producer would have written them, or nearly so where it would have refused the object."""
    with suppress(Rejected):
        return examine(Received(data, Door.STOW, "stow", 1.0, ""), Lanes(())).headers
    explicit = "1.2.840.10008.1.2.1"
    return ScanHeaders("1.2.3", "1.2.3.1", "1.2.3.1.1", "1.2.3.4", explicit, "d", "p", "FUZZ", 1.0, "", len(data))


def _record() -> Call:
    """A record on its whole way through settling: it must end settled, with an event or a dead letter."""
    log, topics, settings, hooks = TakingLog(), Topics(""), ScoringSettings(), FaultsTold()

    def call(data: bytes) -> None:
        log.entries.clear()
        custody = Custody(settings)
        custody.assign([(topics.routine, 0)])
        custody.add(_fetched(data, topics))
        taken = custody.take()
        if taken is None:
            raise AssertionError("a fetched record was not given out")
        _settling(custody, log, topics, hooks).handle(taken)
        if faults := hooks.take():
            raise AssertionError(f"our own code failed at a record: {faults}")
        if custody.in_work or custody.in_flight[0] or not log.entries:
            raise AssertionError("a record was left unsettled, or settled without a word")

    return call


def _settling(custody: Custody, log: TakingLog, topics: Topics, hooks: FaultsTold) -> Settling:
    tools = Tools(
        custody=custody,
        publishing=Publisher(log, topics),
        inference=SoundModel(),
        analysis=_analyser(),
        payload_of=_inline,
        request_timeout_s=1.0,
        holding=Holding(1024**3),
    )
    return Settling(tools, hooks, lambda: 0.0, lambda: 1.0)


def _inline(scan: Scan) -> bytes:
    """Claims are followed at the real door only (``scans``): here every payload lies in the record."""
    return scan.payload


def _fetched(data: bytes, topics: Topics) -> Fetched:
    key, value, *pairs = (*unpack(data), b"", b"")
    headers = tuple(
        (name.decode("utf-8", "replace"), told) for name, told in zip(pairs[::2], pairs[1::2], strict=False)
    )
    return Fetched(Place(topics.routine, 0, 0), Lane.ROUTINE, key, headers, value, APPENDED_S)


# Contracts


def _events() -> Call:
    def call(data: bytes) -> None:
        with suppress(DecodeError):
            event = events.decode_any(data)
            if events.decode_any(events.encode(event)) != event:
                raise AssertionError("an event is another after encode and decode")
            event.key.decode()
            str(event)
        with suppress(DecodeError):
            partition_of(events.decode(data).study_instance_uid, 24)

    return call


def _scan_headers() -> Call:
    def call(data: bytes) -> None:
        parts = unpack(data)
        pairs = [(n.decode("utf-8", "replace"), v) for n, v in zip(parts[::2], parts[1::2], strict=False)]
        with suppress(DecodeError):
            headers = ScanHeaders.decode(pairs)
            if headers.received_at == headers.received_at and ScanHeaders.decode(headers.encode()) != headers:
                raise AssertionError("headers are others after encode and decode")

    return call


# Flagging


def _fold() -> Call:
    rules = FlaggingSettings()

    def call(data: bytes) -> None:
        parts = unpack(data)
        raws = [
            Raw(number, APPENDED_S + number, key, value or None)
            for number, (key, value) in enumerate(zip(parts[::2], parts[1::2], strict=False))
        ]
        whole = _folded(raws, rules, len(raws) or 1)
        if whole != _folded(raws, rules, 3):
            raise AssertionError("records folded in batches of three give another view")

    return call


def _folded(raws: Sequence[Raw], rules: FlaggingSettings, at_once: int) -> dict[str, str]:
    """The rows that readers see at the end. Closed studies leave memory and come back from what was stored of them."""
    taken = Taken(0, "o", 0, 0, inherits=False)
    fold, kept = PartitionFold(taken, rules, 0), StoredStudies(rules)
    rows: dict[str, str] = {}
    for at in range(0, len(raws), at_once):
        readings = fold.readings(raws[at : at + at_once])
        for uid in fold.missing(readings):
            fold.take_up(uid, kept.study(taken, uid))
        batch = fold.fold(readings, raws[min(at + at_once, len(raws)) - 1].offset + 1)
        for write in batch.writes:
            kept.write(write)
            rows[write.uid] = write.item
            _checked_row(WorklistItem.model_validate_json(write.item))
        fold.written(batch)
    for uid in rows:
        if kept.study(taken, uid) is None:
            raise AssertionError("what was stored of a study is not there")
    return rows


def _checked_row(row: WorklistItem) -> None:
    if not 0 <= row.images_settled <= row.images_received:
        raise AssertionError("more images are settled than were received")
    if row.closed and row.images_settled != row.images_received:
        raise AssertionError("a study closed with images unsettled")


def _replay() -> Call:
    """The same events in any order of delivery, each twice, give the same assessment (design decision 3)."""
    rules = FlaggingSettings()

    def call(data: bytes) -> None:
        found = []
        for value in unpack(data)[1::2]:
            with suppress(DecodeError):
                event = events.decode(value)
                if isinstance(event, events.Arrived):
                    found.append(event)
        study = Study("1.2.826.0.77.1", rules)
        for offset, event in enumerate([*found, *reversed(found)]):
            study.apply(Logged(event, offset, APPENDED_S + offset))
        if study.item().images_received != len({event.image for event in found}):
            raise AssertionError("an image that came twice was counted twice")

    return call


# Worklist


def _cursor() -> Call:
    def call(data: bytes) -> None:
        text = data.decode("latin-1")
        with suppress(DecodeError):
            place = Cursor.decode(text)
            place.order  # noqa: B018 - must not raise
            if Cursor.decode(place.encode()) != place:
                raise AssertionError("a cursor is another after encode and decode")
        with suppress(ValueError):
            id_order(text)

    return call


def _api() -> Call:
    """The application without its socket. Every answer is one of ours: 500 means a fault."""
    view, hooks, hub = SmallView(), FaultsTold(), Hub()
    reading = Reading(view, 30.0, lambda: 1.0, hooks)
    hub.close()  # live readers are let go at once: their stream is tried at the real door
    app = make_app(Desk(WorklistSettings(), reading, view, hub, hooks, OpenEntrance()))
    loop = asyncio.new_event_loop()

    def call(data: bytes) -> None:
        status, body = loop.run_until_complete(_asked(app, data))
        if status >= 500 and status != 503:  # noqa: PLR2004 - HTTP's own numbers
            raise AssertionError(f"answered {status}: {body[:200]!r}")
        if faults := set(hooks.take()) - {"worklist.item", "worklist.study"}:  # one study is stored broken
            raise AssertionError(f"our own code failed at a request: {faults}")

    return call


async def _asked(app: Any, data: bytes) -> tuple[int, bytes]:
    method, target, *pairs = (*unpack(data), b"", b"")
    path, _, query = target.partition(b"?")
    headers = [(name.lower(), value) for name, value in zip(pairs[::2], pairs[1::2], strict=False)]
    scope = {
        "type": "http",
        "method": method.decode("latin-1") or "GET",
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "headers": headers,
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "http_version": "1.1",
        "asgi": {"version": "3.0"},
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    status = next(one["status"] for one in sent if one["type"] == "http.response.start")
    return int(status), b"".join(one.get("body", b"") for one in sent)


def _told_cursor(dice: Dice) -> bytes:
    return http.cursor(dice) if not dice.chance(6) else dice.pick(http.EVENT_IDS)


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("intake", _part10, _intake, 8),
        Target("header", _part10, _header, 6),
        Target("multipart", stow.grammar_of(_part10), _multipart, 6),
        Target("analysis", _part10, _analysis, 6),
        Target("record", records.scan_of(_part10), _record, 5),
        Target("events", records.event, _events, 12),
        Target("scan_headers", records.scan_headers, _scan_headers, 8),
        Target("fold", records.events, _fold, 3),
        Target("replay", records.events, _replay, 2),
        Target("cursor", _told_cursor, _cursor, 8),
        Target("api", http.request, _api, 4),
    )
}
