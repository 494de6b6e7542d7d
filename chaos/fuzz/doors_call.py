"""Targets that are real doors of a running service, and real topics behind them, with a scanner that keeps sending."""

import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

from chaos.fuzz.dice import Dice, Seeded
from chaos.fuzz.found_out import Found
from chaos.fuzz.grammar import http, part10, records, stow, stream
from chaos.fuzz.parcel import unpack
from chaos.fuzz.result import Result, Tried
from chaos.fuzz.samples_in import all_samples
from chaos.fuzz.scanner_call import KeepsSending
from chaos.fuzz.site_call import Site, running_site
from chaos.fuzz.wire_call import exchanged, status_of
from contracts.errors import PeerError
from contracts.hooks import Silent
from contracts.names import Lane, Topics
from contracts.ports import Entry
from launch.clients.kafka_call import KafkaLog

HANG_S = 5.0
AT_ONCE = 6  # connections: well below what one address may have
BATCH = 60  # inputs between two looks at the processes: a crash is one of these
WARM_SHARE = 0.25
PATIENCE_S = 0.15  # an HTTP peer may wait so long for more before we close our half
DRAIN_S = 120.0  # for the worker to settle what was put on its topics
ACK_S = 20.0  # for the broker to take a record


@dataclass(frozen=True, slots=True)
class DoorTarget:
    """``give`` makes what gives one input to the door; False where that did not come to an end in time.

    ``drained``: what was put in must be settled at the end.
    """

    name: str
    grammar: Callable[[Dice], bytes]
    give: Callable[["Doors"], Callable[[bytes], bool]]
    share: int
    drained: bool = False


@dataclass(slots=True)
class Doors:
    """A site, where broken inputs are kept, and what the site's processes were when last looked at."""

    site: Site
    folder: Path
    tell: bool = True
    log: KafkaLog | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    _pids: Mapping[str, int] = field(default_factory=dict)
    _bad: Mapping[str, float] = field(default_factory=dict)

    def run(self, target: DoorTarget, inputs: int, seed: int, first: int = 0) -> Tried:
        """So many inputs at one door, a few at once."""
        found, began_s = Found(self.folder), time.monotonic()
        self._look()
        give, done, warm = target.give(self), 0, dict[str, int]()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            while done < inputs:
                numbers = range(first + done, first + min(inputs, done + BATCH))
                batch = [target.grammar(Seeded(seed, number)) for number in numbers]
                late = [data for data, ended in zip(batch, pool.map(give, batch), strict=True) if not ended]
                self._judge(target, batch, [data for data in late if not give(data)], found)
                done += len(batch)
                if not warm and done >= inputs * WARM_SHARE:
                    warm = dict(self.site.memory())
                self._say(f"{target.name}: {done} of {inputs}")
        notes = self._drained(target, found)
        growth = {name: (size - warm.get(name, size)) / 2**20 for name, size in self.site.memory().items()}
        notes += tuple(f"{name} grew {mib:.1f} MiB" for name, mib in growth.items())
        seconds = round(time.monotonic() - began_s, 1)
        grown = round(max(0.0, *growth.values()), 1)
        return Tried(target.name, done, found.crashes, found.hangs, grown, seconds, 0.0, tuple(found.files), notes)

    def _judge(self, target: DoorTarget, batch: list[bytes], late: list[bytes], found: Found) -> None:
        """Whoever takes too long twice hangs; a service that died or met a fault did so over one of the batch."""
        for data in late:
            found.hang(target.name, data, "the door did not close")
        pids, bad = self._pids, self._bad
        self._look()
        died = [name for name in pids if pids[name] != self._pids[name]]
        grew = [name for name, count in self._bad.items() if count > bad.get(name, 0.0)]
        if died or grew:
            place = f"died: {died}" if died else f"fault: {grew}"
            found.died(target.name, _packed(batch), place)

    def _look(self) -> None:
        self._pids = self.site.pids()
        self._bad = {**self.site.faults(), **self.site.tracebacks()}

    def _drained(self, target: DoorTarget, found: Found) -> tuple[str, ...]:
        if not target.drained:
            return ()
        until_s = time.monotonic() + DRAIN_S
        while (lag := self.site.lag()) is None or lag > 0:
            if time.monotonic() > until_s:
                found.hang(target.name, b"", "the topics are never drained")
                return (f"lag stays at {lag}",)
            time.sleep(0.5)
        return ()

    def _say(self, sentence: str) -> None:
        if self.tell:
            print(sentence, file=sys.stderr, flush=True)

    def append(self, topic: str, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> bool:
        """One record on a real topic; a record that the broker does not take is no fault of ours."""
        with suppress(PeerError):
            log = self._opened()
            partition = crc32(key.partition(b"|")[0]) % log.partitions
            log.append(Entry(topic, partition, key, value or None, headers)).result(ACK_S)
        return True

    def _opened(self) -> KafkaLog:
        with self.lock:
            self.log = self.log or KafkaLog(self.site.stack.settings.kafka, Silent())
            until_s = time.monotonic() + ACK_S
            while not self.log.up() and time.monotonic() < until_s:
                time.sleep(0.05)
            return self.log

    @property
    def topics(self) -> Topics:
        """The site's."""
        return Topics(self.site.stack.settings.kafka.topic_prefix)

    def close(self) -> None:
        """Lets the log go."""
        if self.log is not None:
            self.log.close(5.0)


def _packed(batch: list[bytes]) -> bytes:
    """All of a batch in one file: the culprit is found by halving it (``--replay``)."""
    from chaos.fuzz.parcel import pack  # noqa: PLC0415 - of a failure

    return pack(batch)


# What each door is given


def _dicom(doors: Doors) -> Callable[[bytes], bool]:
    return lambda data: exchanged(doors.site.dicom, data, HANG_S).ended


def _stow(doors: Doors) -> Callable[[bytes], bool]:
    def give(parcel: bytes) -> bool:
        flavour = sum(parcel[-64:]) % 8  # some chunked, some whose Content-Length lies
        lie = {0: 10**9, 1: 0, 2: 7}.get(flavour)
        path = b"/studies" if flavour != 3 else b"/studies/1.2.3"  # noqa: PLR2004 - one flavour of eight
        request = stow.request_of(parcel, chunked=flavour > 4, length=lie, path=path)  # noqa: PLR2004 - as above
        return _answered(doors.site.stow, request)

    return give


def _worklist(doors: Doors) -> Callable[[bytes], bool]:
    return lambda parcel: _answered(doors.site.worklist, http.wire_of(parcel))


def _answered(address: tuple[str, int], request: bytes) -> bool:
    """A 500 is told by the fault it counts."""
    exchange = exchanged(address, request, HANG_S, PATIENCE_S)
    return exchange.ended and status_of(exchange.answer) != 500  # noqa: PLR2004 - HTTP's own number


def _scans(doors: Doors) -> Callable[[bytes], bool]:
    def give(parcel: bytes) -> bool:
        key, value, *pairs = (*unpack(parcel), b"", b"")
        headers = [(n.decode("utf-8", "replace"), v) for n, v in zip(pairs[::2], pairs[1::2], strict=False)]
        lane = Lane.STAT if value[:1] == b"M" else Lane.ROUTINE
        return doors.append(doors.topics.lane(lane), key, value, headers)

    return give


def _study_events(doors: Doors) -> Callable[[bytes], bool]:
    def give(parcel: bytes) -> bool:
        key, value = (*unpack(parcel), b"", b"")[:2]
        return doors.append(doors.topics.events, key, value, [])

    return give


def _objects(dice: Dice) -> bytes:
    return part10.grammar_of(all_samples())(dice)


DOORS: dict[str, DoorTarget] = {
    target.name: target
    for target in (
        DoorTarget("dicom-door", stream.grammar_of(stream.Objects(_objects)), _dicom, 10),
        DoorTarget("stow-door", stow.grammar_of(_objects), _stow, 4),
        DoorTarget("worklist-door", http.request, _worklist, 6),
        DoorTarget("scans-topic", records.scan_of(_objects), _scans, 1, drained=True),
        DoorTarget("events-topic", records.event_record, _study_events, 3, drained=True),
    )
}


def run_doors(orders: Mapping[str, tuple[int, int]], seed: int, folder: Path, *, tell: bool = True) -> Result:
    """Target → (first, inputs), one door after the other on one running site, while the scanner keeps sending."""
    with TemporaryDirectory(prefix="triage-fuzz-") as place, running_site(Path(place) / "stack") as site:
        scanner, doors = KeepsSending(site.dicom), Doors(site, folder, tell)
        scanner.start()
        try:
            run = partial(doors.run, seed=seed)
            tried = {name: run(DOORS[name], inputs, first=first) for name, (first, inputs) in orders.items()}
        finally:
            scanner.stop()
            doors.close()
        result = Result(tried, scanner.scanned(site.stack.addresses.worklist), (seed,))
        if not result.good:
            print(f"the scanner was told: {scanner.refusals()[:5]}", file=sys.stderr, flush=True)
            _keep_logs(site, folder)
    return result


def replay_at_door(name: str) -> Callable[[bytes], None]:
    """Gives a kept batch, or one input, to a door of a stack started for it. Raises AssertionError where it hurts."""

    def give(data: bytes) -> None:
        with TemporaryDirectory(prefix="triage-fuzz-") as place, running_site(Path(place) / "stack") as site:
            doors = Doors(site, Path(place) / "found")
            before = {**site.faults(), **site.tracebacks()}, site.pids()
            late = [one for one in unpack(data) or [data] if not DOORS[name].give(doors)(one)]
            after = {**site.faults(), **site.tracebacks()}, site.pids()
            if late or before != after:
                raise AssertionError(f"{len(late)} did not end; {before} became {after}")

    return give


def _keep_logs(site: Site, folder: Path) -> None:
    """What the services said of it, beside the inputs that broke them."""
    folder.mkdir(parents=True, exist_ok=True)
    for service in site.stack.services.values():
        shutil.copy(service.log, folder / service.log.name)
