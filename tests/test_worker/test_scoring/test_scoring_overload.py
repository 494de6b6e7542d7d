"""More images than the model can score: stat keeps its time, routine waits and is not starved, memory stays bounded."""

import threading
import time
from io import BytesIO
from typing import Any

import pydicom
import pytest

from contracts.events import Scored, decode
from contracts.names import Lane

pytestmark = [pytest.mark.stack, pytest.mark.kafka]

WORK = 107  # the test's model takes a tenth of a second for such an image
WINDOW = 12
STAT_WEIGHT = 4


@pytest.fixture(scope="module")
def laborious(small_head: bytes) -> bytes:
    """An image that keeps the model busy."""
    data = pydicom.dcmread(BytesIO(small_head))
    pixels = data.pixel_array.copy()
    pixels[0, 0] = WORK
    data.PixelData = pixels.tobytes()
    out = BytesIO()
    data.save_as(out)
    return out.getvalue()


def send(bench: Any, payload: bytes, lane: Lane, count: int) -> None:
    """Images of three studies of one lane."""
    name = {Lane.STAT: 1, Lane.ROUTINE: 2}[lane]
    for number in range(count):
        bench.send(bench.headers(payload, f"1.{name}.{number % 3}", f"1.{name}.9.{number}", lane), payload)


def in_order(bench: Any, count: int) -> list[tuple[float, Lane]]:
    """When each image was settled, by the broker's clock, and which lane it came by."""
    records = bench.records(bench.topics.events, lambda found: len({r.key for r in found}) >= count, 300.0)
    assert all(isinstance(decode(record.value), Scored) for record in records)
    first: dict[bytes, float] = {}
    for record in sorted(records, key=lambda record: record.timestamp):
        first.setdefault(record.key, record.timestamp / 1000)
    lanes = {b"1": Lane.STAT, b"2": Lane.ROUTINE}
    return [(at, lanes[key.split(b".")[1]]) for key, at in first.items()]


class _Watched:
    """The largest that custody ever was, looked at all the time."""

    def __init__(self, service: Any) -> None:
        self.images = self.size_bytes = 0
        self._custody = service._ports.custody
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(0.002):
            images, size_bytes = self._custody.in_flight
            self.images, self.size_bytes = max(self.images, images), max(self.size_bytes, size_bytes)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(5)


def test_stat_overtakes_a_backlog_of_routine_and_memory_stays_within_the_window(
    kafka_broker: str, faulty_triton: Any, bench_of: Any, running: Any, told: Any, laborious: bytes
) -> None:
    """However long routine's backlog is, before a stat image are at most those in the window and routine's turns."""
    room_bytes = WINDOW * len(laborious)
    bench = bench_of(
        kafka_broker,
        faulty_triton.grpc,
        cooperative=True,
        in_flight_images=4 * WINDOW,
        in_flight_bytes=room_bytes,
        stat_weight=STAT_WEIGHT,
    )
    send(bench, laborious, Lane.ROUTINE, 120)
    with running(bench.settings, told) as service:
        watched = _Watched(service)
        bench.settled(5)
        before_s = time.time()
        send(bench, laborious, Lane.STAT, 12)
        settled = in_order(bench, 132)
        watched.end()
    last_stat_s = max(at for at, lane in settled if lane is Lane.STAT)
    overtaken = [at for at, lane in settled if lane is Lane.ROUTINE and at > last_stat_s]
    between = [at for at, lane in settled if lane is Lane.ROUTINE and before_s <= at <= last_stat_s]
    assert len(overtaken) >= 30, f"{len(between)} routine images went before the last stat one"
    assert watched.size_bytes <= room_bytes
    assert watched.images <= WINDOW
    assert watched.images > 1


def test_routine_is_not_starved_by_stat_that_never_ends(
    kafka_broker: str, faulty_triton: Any, bench_of: Any, running: Any, told: Any, laborious: bytes
) -> None:
    """While stat images wait, every few of them one routine image is settled."""
    bench = bench_of(kafka_broker, faulty_triton.grpc, cooperative=True, in_flight_images=8, stat_weight=STAT_WEIGHT)
    send(bench, laborious, Lane.ROUTINE, 30)
    send(bench, laborious, Lane.STAT, 80)
    with running(bench.settings, told):
        settled = in_order(bench, 110)
    stat = sorted(at for at, lane in settled if lane is Lane.STAT)
    meanwhile = [at for at, lane in settled if lane is Lane.ROUTINE and at <= stat[-10]]
    assert len(meanwhile) >= 70 / STAT_WEIGHT / 2
    waiting = [at for at, lane in settled if lane is Lane.ROUTINE and at > stat[len(stat) // 2]]
    assert len(waiting) >= 10, "stat goes first"
