"""What may be done with what lies in the log: events and headers decoded, and folded into the view by flagging."""

from collections.abc import Sequence
from contextlib import suppress

from chaos.fuzz.doubles import StoredStudies
from chaos.fuzz.parcel import unpack
from chaos.fuzz.target import Call
from contracts import events as codec
from contracts.errors import DecodeError
from contracts.names import partition_of
from contracts.scans import ScanHeaders
from contracts.settings import FlaggingSettings
from contracts.worklist import WorklistItem
from worker.flagging.study import Logged, Study
from worker.flagging.view import PartitionFold, Raw, Taken

APPENDED_S = 1_800_000_000.0


def events() -> Call:
    """What decodes is the same after encode and decode."""

    def call(data: bytes) -> None:
        with suppress(DecodeError):
            event = codec.decode_any(data)
            if codec.decode_any(codec.encode(event)) != event:
                raise AssertionError("an event is another after encode and decode")
            event.key.decode()
            str(event)
        with suppress(DecodeError):
            partition_of(codec.decode(data).study_instance_uid, 24)

    return call


def scan_headers() -> Call:
    """Headers that decode are the same after encode and decode."""

    def call(data: bytes) -> None:
        parts = unpack(data)
        pairs = [(n.decode("utf-8", "replace"), v) for n, v in zip(parts[::2], parts[1::2], strict=False)]
        with suppress(DecodeError):
            headers = ScanHeaders.decode(pairs)
            if headers.received_at == headers.received_at and ScanHeaders.decode(headers.encode()) != headers:
                raise AssertionError("headers are others after encode and decode")

    return call


def fold() -> Call:
    """Any records give one view, however they are batched; every row of it is whole."""
    rules = FlaggingSettings()

    def call(data: bytes) -> None:
        parts = unpack(data)
        raws = [
            Raw(number, APPENDED_S + number, key, value or None)
            for number, (key, value) in enumerate(zip(parts[::2], parts[1::2], strict=False))
        ]
        whole = folded(raws, rules, len(raws) or 1)
        if whole != folded(raws, rules, 3):
            raise AssertionError("records folded in batches of three give another view")

    return call


def folded(raws: Sequence[Raw], rules: FlaggingSettings, at_once: int) -> dict[str, str]:
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


def replay() -> Call:
    """The same events in any order of delivery, each twice, give the same assessment (design decision 3)."""
    rules = FlaggingSettings()

    def call(data: bytes) -> None:
        found = []
        for value in unpack(data)[1::2]:
            with suppress(DecodeError):
                event = codec.decode(value)
                if isinstance(event, codec.Arrived):
                    found.append(event)
        study = Study("1.2.826.0.77.1", rules)
        for offset, event in enumerate([*found, *reversed(found)]):
            study.apply(Logged(event, offset, APPENDED_S + offset))
        if study.item().images_received != len({event.image for event in found}):
            raise AssertionError("an image that came twice was counted twice")

    return call
