"""What scoring may do with an image, and with a record of the scans topics."""

from contextlib import suppress
from functools import lru_cache
from threading import Semaphore

from pydicom.uid import JPEGLSLossless

from chaos.fuzz.doubles import FaultsTold, SoundModel, TakingLog
from chaos.fuzz.parcel import unpack
from chaos.fuzz.samples_in import compressed_ct
from chaos.fuzz.target import Call
from contracts import events
from contracts.errors import Rejected
from contracts.hooks import Silent
from contracts.names import Lane, Topics
from contracts.scans import Place, Scan, ScanHeaders
from contracts.settings import ScoringSettings
from producer.intake import Door, Received, examine
from producer.lanes import Lanes
from worker.scoring.analysis import Analysis, Work
from worker.scoring.custody import Custody, Fetched
from worker.scoring.decode import Budget as DecodeBudget
from worker.scoring.decoders_call import Decoders
from worker.scoring.holding import Holding
from worker.scoring.kafka_out import Publisher
from worker.scoring.settling import Settling, Tools

APPENDED_S = 1_800_000_000.0


def _budget() -> DecodeBudget:
    settings = ScoringSettings()
    return DecodeBudget(settings.decode_budget_bytes, settings.frame_budget_bytes)


@lru_cache
def analyser() -> Analysis:
    """As scoring has it: what is compressed goes to processes that can be killed. One has begun, in nobody's time."""
    made = Analysis(_budget(), Semaphore(1), Silent(), Decoders(ScoringSettings(), Silent()))
    part10 = compressed_ct(JPEGLSLossless)
    list(made.events(Work(_headers_of(part10), part10, Place("scans.routine", 0, 0), 1.0), SoundModel().ask))
    return made


def analysis() -> Call:
    """Every image ends with an event that can be written and read again."""
    analysis, model = analyser(), SoundModel()

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


def record() -> Call:
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
        analysis=analyser(),
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
