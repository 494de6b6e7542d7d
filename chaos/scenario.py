"""What one run of the harness is made of: a load, a fault, a rig to strike, an outcome. Pure.

The order of one run
  1. the stack is up and healthy
  2. scanners begin to send their studies; everything acknowledged goes into the ledger
  3. after a seeded moment the fault acts, and ends by itself
  4. the scanners finish; what was refused for now was sent again
  5. the clock of I6 runs from the fault's end until all that was acknowledged by then is settled and reads are ``ok``
  6. when every study has closed, the invariants are checked through the public interfaces
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from random import Random
from typing import Any, Protocol

from chaos.poison import Poison
from launch.stack.apache_kafka import KafkaNode
from launch.stack.part import Part
from launch.stack.redis_server import RedisServer
from launch.stack.service import ServicePart
from launch.stack.triton_server import TritonServer

RECOVERY_S = 60.0  # I6: settled and readable again that long after the fault's end


class Order(StrEnum):
    """In which order the images of a study are sent."""

    IN_ORDER = "in_order"
    LATE = "late"  # shuffled, and some come after the study has closed, with some seeds minutes after


@dataclass(frozen=True, slots=True)
class Load:
    """What the scanners send during one run. Shares are of all images or studies, 0…1."""

    studies: int = 24
    images: tuple[int, int] = (6, 14)  # of one study, both ends included
    associations: int = 6  # at once, spread over the producers
    rate: float | None = 40.0  # images a second over all; None: as fast as they are taken
    order: Order = Order.IN_ORDER
    copies: int = 1  # how often each image is sent
    positive: float = 0.4  # studies with a lesion that the stand-in model finds
    stat: float = 0.2  # studies sent with DIMSE priority high
    stow: float = 0.2  # studies sent by STOW-RS instead of C-STORE
    large: float = 0.1  # images that are too large for a record and go to the claim check
    poison: int = 0  # studies with an image that no decoder can read
    far: int = 0  # studies with an image that says it lies 1e308 mm away
    other_bytes: int = 0  # studies in which one SOP Instance UID comes again with other pixels


class Mood(StrEnum):
    """How the stand-in model answers."""

    SOUND = "sound"
    NAN = "nan"
    WRONG_SHAPE = "wrong_shape"
    HANG = "hang"
    SLOW = "slow"  # 250 ms an image


class Disk(StrEnum):
    """What the file store under the claim check does to the producers."""

    SOUND = "sound"
    FULL = "full"  # ENOSPC on write
    SYNC_FAILS = "sync_fails"  # EIO on fsync


class Link(Protocol):
    """A TCP proxy on the way between two parts. Every trouble stays until ``heal``."""

    def reset_after(self, size_bytes: int) -> None:
        """Each connection, present and new, is reset (RST) once that many more bytes went through: amid a PDU."""

    def delay(self, seconds: float) -> None:
        """Every piece arrives that much later, both ways."""

    def one_way(self) -> None:
        """The caller is heard and never answered."""

    def cut(self) -> None:
        """Connections are reset and new ones refused."""

    def heal(self) -> None:
        """Bytes flow; connections that were tampered with are reset."""


class Rig(Protocol):
    """The running stack as a fault may touch it. Parts keep their addresses across restarts."""

    @property
    def brokers(self) -> Sequence[KafkaNode]:
        """All of them, whether they run or not; so are all parts below."""

    @property
    def redis(self) -> RedisServer:
        """The view's store."""

    @property
    def triton(self) -> TritonServer:
        """The inference server."""

    @property
    def producers(self) -> Sequence[ServicePart]:
        """Two."""

    @property
    def workers(self) -> Sequence[ServicePart]:
        """Two, each with both halves."""

    @property
    def worklist(self) -> ServicePart:
        """One."""

    @property
    def links(self) -> Mapping[str, Link]:
        """``dicom-0``, ``dicom-1`` (scanners → producers), ``redis``, ``triton`` (workers → it), ``redis-worklist``."""

    @property
    def partitions(self) -> int:
        """Of each topic."""

    def leader(self) -> KafkaNode:
        """The broker that leads most partitions of study.events now."""

    def model(self, mood: Mood) -> None:
        """How the served model answers from now on."""

    def disk(self, trouble: Disk) -> None:
        """What the claim-check store does from now on."""

    def clock(self, part: Part, ahead_s: float) -> None:
        """The wall clock of that part jumps at once; monotonic clocks go on as they were. 0: right again."""

    def serve(self, *, model: bool) -> None:
        """Restarts Triton with the model, or with a repository that does not know it."""

    def tell(self, records: Sequence[Poison]) -> None:
        """Appends to study.events, past all of our services."""

    def extra_worker(self) -> ServicePart:
        """One more worker, not started: launch(), ask_to_stop(), wait_until_stopped(), close() it."""

    def status(self) -> str:
        """What the worklist says of its own answers now; ``away`` when it says nothing."""

    def pause(self, seconds: float) -> None:
        """Waits, unless the run is being interrupted."""

    def revive(self, part: Part) -> None:
        """Starts a part that is down and returns when it answers; does nothing while it runs."""


Act = Callable[[Rig, Random], str]
"""Strikes, holds, ends the fault; when it returns everything could work again. Says in words what was struck."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the matrix. ``why``: which promise it tries."""

    name: str
    why: str
    act: Act
    load: Load = Load()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to; the first nine are what ``--json`` prints of it."""

    fault: str
    seed: int
    acknowledged: int
    settled: int
    lost: int
    doubled: int
    silent_normals: int
    actions_lost: int
    recovered_s: float | None  # None: not within the limit
    violations: tuple[str, ...]
    struck: str = ""
    studies: int = 0
    seconds: float = 0.0

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def totals(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Sums over runs; the longest recovery."""
    counts = ("acknowledged", "settled", "lost", "doubled", "silent_normals", "actions_lost", "studies")
    recovered = [outcome.recovered_s for outcome in outcomes if outcome.recovered_s is not None]
    return {
        "runs": len(outcomes),
        "faults": len({outcome.fault for outcome in outcomes}),
        **{name: sum(getattr(outcome, name) for outcome in outcomes) for name in counts},
        "violations": sum(len(outcome.violations) for outcome in outcomes),
        "longest_recovery_s": max(recovered, default=None),
    }
