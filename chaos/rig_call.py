"""The running stack of the harness: ground, crew and the links between, as a fault may touch them (scenario.Rig)."""

import json
import shutil
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path

from chaos.control_call import Control
from chaos.crew_call import Crew, CrewPart, Ways
from chaos.ground_call import Ground
from chaos.link_call import Address, TcpLink
from chaos.log_out import append
from chaos.poison import Poison
from chaos.scenario import Disk, Mood
from contracts.worklist import QueueStatus
from launch.clients.connect_call import topics_of
from launch.stack.apache_kafka import KafkaNode
from launch.stack.part import Part
from launch.stack.redis_server import RedisServer
from launch.stack.service import ServicePart
from launch.stack.triton_server import TritonServer

ASK_LIMIT_S = 3.0  # one question to the worklist
LOOK_S = 0.1
DICOM_LINKS = ("dicom-0", "dicom-1")


class NotHealthy(AssertionError):
    """The stack does not come back: the message says which part does not answer."""


class RunningRig:
    """Implements scenario.Rig; made by ``running_rig``.

    Links keep their addresses when a crew is replaced, so senders need not learn new ones. ``redis-worklist`` lies
    between the worklist and Redis, ``redis`` and ``triton`` between the workers and those.
    """

    def __init__(self, folder: Path, brokers: int) -> None:
        self.folder = folder.resolve()
        self._life = ExitStack()
        self._interrupted = threading.Event()
        self.ground = Ground(self.folder, brokers)
        self._links = {name: self._link() for name in (*DICOM_LINKS, "redis", "redis-worklist", "triton")}
        for name in ("redis", "redis-worklist"):
            self._links[name].target = _address(self.ground.redis.address("redis"))
        self._links["triton"].target = _address(self.ground.triton.grpc)
        self._disk = Control(self.folder / "disk", Disk.SOUND)
        self.crew: Crew

    def _link(self) -> TcpLink:
        return self._life.enter_context(TcpLink())

    # What runs (scenario.Rig)

    @property
    def brokers(self) -> Sequence[KafkaNode]:
        """All of them, whether they run or not."""
        return self.ground.kafka.nodes

    @property
    def redis(self) -> RedisServer:
        """The view's store."""
        return self.ground.redis

    @property
    def triton(self) -> TritonServer:
        """The inference server."""
        return self.ground.triton

    @property
    def producers(self) -> Sequence[ServicePart]:
        """Two."""
        return self.crew.producers

    @property
    def workers(self) -> Sequence[ServicePart]:
        """Two, each with both halves."""
        return self.crew.workers

    @property
    def worklist(self) -> ServicePart:
        """One."""
        return self.crew.worklist

    @property
    def links(self) -> Mapping[str, TcpLink]:
        """By name, see above."""
        return self._links

    @property
    def parts(self) -> Sequence[Part]:
        """Every process, in the order of their start."""
        return [*self.brokers, self.redis, self.triton, *self.crew.parts]

    # Where it is

    @property
    def dicom(self) -> tuple[Address, Address]:
        """Host and port of each C-STORE door, through its link."""
        first, second = (self._links[name].address for name in DICOM_LINKS)
        return first, second

    @property
    def stow(self) -> tuple[str, str]:
        """Base URL of each STOW-RS door: images are posted to its /studies."""
        first, second = (f"http://{part.address('producer.stow_port')}" for part in self.crew.producers)
        return first, second

    @property
    def ae_title(self) -> str:
        """Of the C-STORE doors."""
        return self.crew.settings.producer.ae_title

    @property
    def url(self) -> str:
        """Of the worklist."""
        return f"http://{self.crew.worklist.address('worklist.port')}"

    @property
    def metrics(self) -> Mapping[str, str]:
        """Part → URL."""
        return {part.name: part.metrics for part in self.crew.parts}

    @property
    def bootstrap(self) -> str:
        """``host:port,…`` of the brokers."""
        return self.ground.kafka.bootstrap

    @property
    def topic_prefix(self) -> str:
        """Of the present crew's topics."""
        return self.crew.settings.kafka.topic_prefix

    @property
    def partitions(self) -> int:
        """Of each topic."""
        return self.crew.settings.kafka.partitions

    # Its state

    def healthy(self) -> bool:
        """Whether every part answers, sees its peers, and reads say ``ok``."""
        return not self.ailing()

    def ailing(self) -> list[str]:
        """What does not work, in words; empty when all does."""
        silent = [f"{part.name} does not answer" for part in self.parts if not (part.alive() and part.answers())]
        if self.triton.alive() and not self.ground.triton.knows_model():
            silent.append("triton does not know the model")
        status = self.status()
        return silent if status == QueueStatus.OK else [*silent, f"reads are {status}"]

    def status(self) -> str:
        """What the worklist says of its own answers; ``away`` when it says nothing."""
        try:
            with urllib.request.urlopen(f"{self.url}/v1/worklist?limit=1", timeout=ASK_LIMIT_S) as answer:  # noqa: S310  # ours
                return str(json.load(answer)["status"])
        except (OSError, HTTPException, ValueError, KeyError):
            return "away"

    def wait_healthy(self, limit_s: float) -> None:
        """Returns when all is well. Raises NotHealthy."""
        end = time.monotonic() + limit_s
        while ailing := self.ailing():
            if time.monotonic() > end:
                raise NotHealthy(f"not healthy within {limit_s:g} s: {'; '.join(ailing)}")
            time.sleep(LOOK_S)

    # What a fault does (scenario.Rig)

    def leader(self) -> KafkaNode:
        """The broker that leads most partitions of study.events now."""
        return self.ground.leader(topics_of(self.crew.settings.kafka).events)

    def model(self, mood: Mood) -> None:
        """How the served model answers from now on."""
        self.ground.triton.mood.say(mood)

    def disk(self, trouble: Disk) -> None:
        """What the claim-check store does from now on."""
        self._disk.say(trouble)

    def clock(self, part: Part, ahead_s: float) -> None:
        """The wall clock of one of our services jumps (within a second). 0: right again."""
        if not isinstance(part, CrewPart):
            raise TypeError(f"{part.name} has no clock that can be moved")
        part.clock.ahead(ahead_s)

    def serve(self, *, model: bool) -> None:
        """Restarts Triton with the model, or with a repository that does not know it."""
        self.ground.triton.offer(model=model)
        self.ground.triton.restart()

    def tell(self, records: Sequence[Poison]) -> None:
        """Appends to study.events, past all of our services."""
        append(self.bootstrap, topics_of(self.crew.settings.kafka).events, records)

    def extra_worker(self) -> CrewPart:
        """One more worker, not started."""
        return self.crew.extra_worker()

    def pause(self, seconds: float) -> None:
        """Waits, unless the run is being interrupted."""
        self._interrupted.wait(seconds)

    def interrupt(self) -> None:
        """Ends every pause, for good."""
        self._interrupted.set()

    def revive(self, part: Part) -> None:
        """Starts a part that is down and returns when it answers; does nothing while it runs. Raises StartFailed."""
        if isinstance(part, KafkaNode):
            self.ground.revive_broker(part)
        else:
            part.start()

    # Its life

    def heal(self) -> None:
        """Whatever a fault left behind is undone and every part runs. Raises StartFailed."""
        for link in self._links.values():
            link.heal()
        self.model(Mood.SOUND)
        self.disk(Disk.SOUND)
        for service in self.crew.parts:
            service.clock.ahead(0.0)
        if not self.ground.triton.offers_model:
            self.serve(model=True)
        for part in self.parts:
            self.revive(part)

    def renew(self, source: Path | None = None) -> None:
        """Another crew in place of the present one: empty topics, empty queue, perhaps another source tree."""
        old = self.crew
        old.close()
        self.ground.start()
        self.ground.forget(old.prefix)
        shutil.rmtree(old.payload, ignore_errors=True)  # a tenth of all images, and nobody will ask for them again
        self.start_crew(source)

    def start_crew(self, source: Path | None = None) -> None:
        """Five services of the tree (ours without one). Raises StartFailed."""
        ways = Ways(self.bootstrap, len(self.brokers), *(self._links[n] for n in ("redis", "redis-worklist", "triton")))
        self.crew = Crew(self.folder, ways, self._disk, source)
        for name, producer in zip(DICOM_LINKS, self.crew.producers, strict=True):
            self._links[name].target = _address(producer.address("producer.port"))
        self.crew.start()
        self.wait_healthy(self.crew.worklist.start_limit_s)

    def close(self) -> None:
        """Kills everything."""
        self.interrupt()
        if hasattr(self, "crew"):
            self.crew.close()
        self.ground.close()
        self._life.close()


@contextmanager
def running_rig(folder: Path, *, brokers: int = 3, source: Path | None = None) -> Iterator[RunningRig]:
    """Yields when everything is healthy; nothing is left running afterwards. Raises StartFailed, ProgramMissing."""
    rig = RunningRig(folder, brokers)
    try:
        rig.ground.start()
        rig.start_crew(source)
        yield rig
    finally:
        rig.close()


def _address(told: str) -> Address:
    host, _, port = told.rpartition(":")
    return host, int(port)
