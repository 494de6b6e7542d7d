"""The embedded stack: broker, Redis, Triton and our three services on one machine, started, watched and stopped."""

import shutil
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from contracts.settings import Settings
from launch.local_settings import DECIDED, PORTS, Broker, Given, combined, decided, defaults, model_repository
from launch.settings_in import load, variable_of
from launch.stack.apache_kafka import ApacheKafka
from launch.stack.part import Part, StartFailed, wait_until_all_answer
from launch.stack.ports import HeldPort, hold_port
from launch.stack.redis_server import RedisServer
from launch.stack.service import ServicePart
from launch.stack.tansu import Tansu
from launch.stack.triton_server import TritonServer
from launch.state_folder_out import keep_only, one_stack_in, private_folder, remove_left_overs
from launch.supervision import Say, Watched, look_at_all

SERVICES = ("producer", "worker", "worklist")
LOOK_S = 0.2  # how often the parts are looked at


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the stack listens."""

    dicom: str  # host:port
    ae_title: str
    stow: str  # base URL of the DICOMweb service: images are posted to its /studies
    worklist: str  # URL
    kafka: str  # host:port
    redis: str  # host:port
    triton: str  # host:port, gRPC
    metrics: dict[str, str]  # service → URL

    def as_dict(self) -> dict[str, Any]:
        """As ``--json`` prints them."""
        return asdict(self)


class LocalStack:
    """Starts everything on entry, watches it from a thread, stops everything on exit.

    ``folder`` keeps the state; without one it is temporary and removed at the end, but for the logs of what failed.
    After the end of a memory-only broker ``failure`` is a sentence and everything has been stopped.
    """

    def __init__(self, said: Given, say: Say, broker: Broker = Broker.TANSU, folder: Path | None = None) -> None:
        self._said, self._say, self._kind = said, say, broker
        self._keep = folder is not None
        self.folder = private_folder(folder)
        self._ports: list[HeldPort] = []
        self._life = ExitStack()
        self._ending = threading.Event()
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
        self.failure = ""

        self.broker = Tansu(self.folder / "broker") if broker is Broker.TANSU else ApacheKafka(self.folder / "broker")
        self.redis = RedisServer(self.folder / "redis")
        self.triton = TritonServer(self.folder / "triton", model_repository(said))
        self.environment = self._service_environment()
        self.settings: Settings = load(environ=self.environment)
        self.services = {name: self._service(name) for name in SERVICES}

    # Start and end

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Starts everything and returns when every service is ready. Raises StartFailed or SettingsError.

        1. What the services need comes first, all at once. 2. Then the services, all at once. 3. From then on each
        part is watched. What killed stacks have left is removed before.
        """
        try:
            self._life.enter_context(one_stack_in(self.folder, temporary=not self._keep))
            self._remove_left_overs()
            self._forget_what_the_broker_forgot()
            self._tell_what_is_not_used()
            self._start_peers()
            self._start_services()
        except BaseException as error:
            self.close(failed=isinstance(error, StartFailed))
            raise
        self._watcher.start()

    def _start_peers(self) -> None:
        self._say(f"starting the broker ({self._kind}), Redis and Triton in {self.folder}")
        self.triton.launch()
        self.redis.launch()
        self.broker.start()
        wait_until_all_answer([self.redis, self.triton])

    def _start_services(self) -> None:
        self._say(f"starting the services: {', '.join(SERVICES)}")
        for service in self.services.values():
            service.launch()
        wait_until_all_answer(list(self.services.values()))

    def close(self, *, failed: bool = False) -> None:
        """Stops every part, services first. Where it ``failed``, the logs are kept, and nothing else."""
        self._ending.set()
        if self._watcher.is_alive() and threading.current_thread() is not self._watcher:
            self._watcher.join()
        self._stop_parts()
        if not self._keep:
            self._remove_state(keep_logs=failed or bool(self.failure))
        self._life.close()

    def _remove_state(self, *, keep_logs: bool) -> None:
        logs = [part.log for part in self.parts()] if keep_logs else []
        if keep_only(logs, self.folder):
            removed = "images, queue and records are removed"
            self._say(f"the logs are kept in {self.folder} ({removed}); a crash report in them may hold patient data.")

    def kill(self) -> None:
        """Kills every part at once, without waiting: for a second Ctrl-C."""
        for part in self.parts():
            part.strike()

    def _stop_parts(self) -> None:
        """1. The services drain together while their peers still answer. 2. Triton and Redis. 3. The broker."""
        for parts in (list(self.services.values()), [self.triton, self.redis], self._brokers()):
            for part in parts:
                part.ask_to_stop()
            for part in parts:
                part.wait_until_stopped(part.stop_limit_s)
        for part in self.parts():
            part.close()
        for port in self._ports:
            port.release()

    # What is running

    @property
    def memory_only(self) -> bool:
        """Whether nothing survives the broker's end."""
        return self.broker.memory_only

    @property
    def addresses(self) -> Addresses:
        """Where everything listens; the same after a part was started again."""
        producer, worklist = self.settings.producer, self.settings.worklist
        return Addresses(
            dicom=f"{_reachable(producer.host)}:{producer.port}",
            ae_title=producer.ae_title,
            stow=f"http://{_reachable(producer.stow_host)}:{producer.stow_port}",
            worklist=f"http://{_reachable(worklist.host)}:{worklist.port}",
            kafka=self.broker.bootstrap,
            redis=self.redis.address("redis"),
            triton=self.triton.grpc,
            metrics={name: service.metrics for name, service in self.services.items()},
        )

    @property
    def stopping(self) -> bool:
        """Whether the parts are being stopped, or have been."""
        return self._ending.is_set()

    def pids(self) -> dict[str, int]:
        """Process of each part now; 0 while it is down."""
        first = {"broker": self.broker.pid, "redis": self.redis.pid, "triton": self.triton.pid}
        return first | {name: service.pid for name, service in self.services.items()}

    def parts(self) -> list[Part]:
        """Every process of the stack, in the order of their start."""
        return [*self._brokers(), self.redis, self.triton, *self.services.values()]

    def _brokers(self) -> list[Part]:
        return [self.broker] if isinstance(self.broker, Tansu) else list(self.broker.nodes)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits for the end of the stack, or that long; whether it has ended (see ``failure``)."""
        return self._ended.wait(timeout_s)

    def _watch(self) -> None:
        watched = [Watched(part, vital=isinstance(part, Tansu), since=time.monotonic()) for part in self.parts()]
        lost = None
        while lost is None and not self._ending.wait(LOOK_S):
            lost = look_at_all(watched, time.monotonic(), self._say)
        if lost is not None:
            self._ending.set()
            self.failure = (
                f"the {lost.part.name} ended ({lost.part.ending}) and it kept everything in memory: "
                "nothing survives it, so everything is stopped."
            )
            self._stop_parts()
        self._ended.set()

    # Settings

    def _service_environment(self) -> dict[str, str]:
        own = decided(self._kind, self.broker.bootstrap, self.redis.url, self.triton.grpc)
        own["model_repository"] = str(self.triton.repository)
        own |= {name: str(self._hold()) for name in PORTS if self._to_be_chosen(name)}
        return combined(self._said, defaults(self._kind, self.folder), own)

    def _to_be_chosen(self, dotted: str) -> bool:
        section, _, name = dotted.partition(".")
        return not self._said.says(dotted) or getattr(getattr(self._said.settings, section), name) == 0

    def _hold(self) -> int:
        self._ports.append(hold_port())
        return self._ports[-1].number

    def _service(self, name: str) -> ServicePart:
        probes = self.settings.probes
        ports = {"producer": probes.producer_port, "worker": probes.worker_port, "worklist": probes.worklist_port}
        probe = f"http://{_reachable(probes.host)}:{ports[name]}"
        return ServicePart(self.folder / name, name, self.environment, probe, self.settings.scoring.drain_s)

    def _tell_what_is_not_used(self) -> None:
        for dotted in DECIDED:
            if self._said.says(dotted):
                self._say(f"{variable_of(dotted)} is not used: this stack starts its own and knows its address.")

    def _remove_left_overs(self) -> None:
        for folder in remove_left_overs(time.time()):
            self._say(f"{folder} is removed: a stack that was killed had left it.")

    def _forget_what_the_broker_forgot(self) -> None:
        """A kept queue would name offsets of a log that is gone, and kept payloads belong to no record."""
        if self.memory_only:
            for name in ("redis", "payload"):
                shutil.rmtree(self.folder / name, ignore_errors=True)


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("", "0.0.0.0", "::") else host  # noqa: S104  # compared, not bound
