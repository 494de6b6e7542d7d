"""Our five services on a ground of real servers: two producers, two workers, a worklist.

A crew has topics, groups and keys of its own, so the ground can stay while crews come and go. It may run from another
source tree. Nothing starts a part again that went down: that is what a fault is about, and its own affair.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.clock_call import Clock, compiled
from chaos.control_call import Control
from chaos.link_call import TcpLink
from chaos.scenario import Disk
from contracts.settings import KIB, Settings
from launch.settings_in import load, variable_of
from launch.stack.part import wait_until_all_answer
from launch.stack.service import AWAY, PACKAGE_ROOT, ServicePart

SHIM = Path(__file__).with_name("shim")
PRODUCERS, WORKERS = 2, 2
PAYLOAD_PEER = "payload"  # producer/payload_out.py
DRAIN_S = 20.0  # what a service may take to end after SIGTERM

# What the rig changes for all services: everything the same, only sooner.
SOONER: Mapping[str, object] = {
    "kafka.partitions": 6,
    "kafka.ack_timeout_s": 10,  # a sender that waits for an answer is a sender that does not try again
    "kafka.session_timeout_s": 6,
    "flagging.quiet_s": 2,
    "flagging.deadline_s": 30,
    "triton.request_timeout_s": 3,
    "scoring.drain_s": 10,
    "scoring.brain_mask": False,  # the stand-in answers by a rule that knows no anatomy
    # The smallest matrix that is served is 128 × 128 × 2 bytes = 32 KiB; 192 × 192 go to the claim check.
    "payload.inline_limit_bytes": 48 * KIB,
}


@dataclass(frozen=True, slots=True)
class Ways:
    """Where the services find their peers."""

    bootstrap: str
    replication: int
    redis: TcpLink  # workers → Redis
    redis_of_worklist: TcpLink
    triton: TcpLink


class CrewPart(ServicePart):
    """A service with a name of its own, a clock that can be moved, and perhaps another source tree."""

    start_limit_s = 180.0  # five at once on two cores that have other work, too

    def __init__(self, folder: Path, role: str, said: Mapping[str, object], ports: Sequence[str], source: Path) -> None:
        """``said``: settings by dotted name; ``ports``: those settings that are a port, which is held for it."""
        super().__init__(folder, role, {}, "", DRAIN_S)
        self.name = self.folder.name
        self.clock = Clock(self.folder / "clock", compiled(self.folder.parent))
        probes = f"probes.{role}_port"
        held = {dotted: self.port(dotted) for dotted in (*ports, probes)}
        self._settings = {variable_of(dotted): str(value) for dotted, value in {**said, **held}.items()}
        self._probe = f"http://{self.address(probes)}"
        self._role = role
        self._more: Mapping[str, str] = {}
        self._source = source.resolve()
        self.cwd = self._source  # ``python -m`` looks there first

    def with_environment(self, more: Mapping[str, str]) -> "CrewPart":
        """The same part with more variables; paths in PYTHONPATH come before the source tree's."""
        self._more = more
        return self

    def answers(self) -> bool:
        """Whether it is ready and sees its peers. The payload store is none: it is told by the last write to it."""
        told = self._told()
        return bool(told.get("ready")) and all(
            state != AWAY for peer, state in told.get("peers", {}).items() if peer != PAYLOAD_PEER
        )

    def command(self) -> Sequence[str]:
        """Our own interpreter and command line."""
        return [*super().command()[:-1], self._role]

    def environment(self) -> Mapping[str, str]:
        """A service's, with its clock, of its source tree."""
        places = ":".join(filter(None, (self._more.get("PYTHONPATH", ""), str(self._source))))
        return {**super().environment(), **self.clock.environment(), **self._more, "PYTHONPATH": places}


class Crew:
    """Starts with ``start``; ``close`` kills: its topics and keys go with it, so there is nothing to drain for."""

    def __init__(self, folder: Path, ways: Ways, disk: Control, source: Path | None = None) -> None:
        self.prefix = f"chaos-{uuid.uuid4().hex[:8]}"
        self.folder = folder / self.prefix
        self.payload = self.folder / "payload"
        self._ways = ways
        self._disk = disk
        self._source = source or PACKAGE_ROOT
        self._extra = 0
        self.producers = [self._producer(f"producer-{n}") for n in range(PRODUCERS)]
        self.workers = [self.worker(f"worker-{n}") for n in range(WORKERS)]
        self.worklist = self._worklist()

    @property
    def parts(self) -> list[CrewPart]:
        """All five."""
        return [*self.producers, *self.workers, self.worklist]

    def start(self) -> None:
        """Starts all together and returns when each is ready. Raises StartFailed and leaves nothing running."""
        self._disk.say(Disk.SOUND)
        try:
            for part in self.parts:
                part.launch()
            wait_until_all_answer(self.parts)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Kills every part and lets the ports go."""
        for part in self.parts:
            part.strike()
        for part in self.parts:
            part.kill()
            part.close()

    def worker(self, name: str) -> CrewPart:
        """A worker that is not started."""
        return self._part(name, "worker", {"redis.url": _redis(self._ways.redis)})

    def extra_worker(self) -> CrewPart:
        """One more, not started."""
        self._extra += 1
        return self.worker(f"worker-extra-{self._extra}")

    @property
    def settings(self) -> Settings:
        """As the first producer has them: what all share is the same everywhere."""
        return load(environ=self.producers[0].environment())

    def _producer(self, name: str) -> CrewPart:
        part = self._part(name, "producer", {}, ports=("producer.port", "producer.stow_port"))
        shim = {"CHAOS_DISK_FOLDER": str(self.payload), "CHAOS_DISK_FILE": str(self._disk.file)}
        return part.with_environment({"PYTHONPATH": str(SHIM), **shim})

    def _worklist(self) -> CrewPart:
        redis = {"redis.url": _redis(self._ways.redis_of_worklist)}
        return self._part("worklist", "worklist", redis, ports=("worklist.port",))

    def _part(self, name: str, role: str, own: Mapping[str, object], ports: Sequence[str] = ()) -> CrewPart:
        self.payload.mkdir(parents=True, exist_ok=True)
        return CrewPart(self.folder / name, role, {**SOONER, **self._peers(), **own}, ports, self._source)

    def _peers(self) -> Mapping[str, object]:
        return {
            "kafka.bootstrap": self._ways.bootstrap,
            "kafka.topic_prefix": f"{self.prefix}.",
            "kafka.replication": self._ways.replication,
            "kafka.min_insync": self._ways.replication // 2 + 1,
            "redis.key_prefix": f"{self.prefix}:",
            "triton.url": _host_port(self._ways.triton),
            "payload.url": self.payload.as_uri(),
        }


def _host_port(link: TcpLink) -> str:
    host, port = link.address
    return f"{host}:{port}"


def _redis(link: TcpLink) -> str:
    return f"redis://{_host_port(link)}/0"
