"""Real Apache Kafka in KRaft mode, one or several brokers: for tests and for ``triage local --broker kafka``."""

import os
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from contracts.settings import MIB, KafkaSettings
from launch.stack.broker_call import brokers_in
from launch.stack.kafka_jars import POM, java, kafka_jars
from launch.stack.part import POLL_S, Part, StartFailed, port_open, wait_until_all_answer

HEAP = "-Xmx400m"  # enough for records of 16 MiB at the rates of one machine
FORMAT_LIMIT_S = 180
COMPLETE_LIMIT_S = 120  # from the first broker that answers to the last one registered
RECORD_OVERHEAD_BYTES = 1 * MIB  # batch header, key and headers around the largest record we send
SESSION_TIMEOUT_MS = 4000  # a killed broker is fenced soon: tests fail over in seconds instead of nine
LOGGING = POM.with_name("log4j2.properties")


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the brokers of one cluster have in common."""

    identity: str
    replication: int
    voters: str
    max_message_bytes: int = KafkaSettings().max_record_bytes + RECORD_OVERHEAD_BYTES

    @property
    def min_insync(self) -> int:
        """A majority: acknowledged records outlive the loss of one broker of three."""
        return self.replication // 2 + 1

    def properties(self) -> dict[str, object]:
        """server.properties of every broker. Each departs from Kafka's default for a reason given here."""
        return {
            "process.roles": "broker,controller",
            "controller.quorum.voters": self.voters,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            # A misspelt topic is an error, never a new topic with the wrong partition count.
            "auto.create.topics.enable": "false",
            "default.replication.factor": self.replication,
            "min.insync.replicas": self.min_insync,
            "message.max.bytes": self.max_message_bytes,
            "replica.fetch.max.bytes": self.max_message_bytes,
            # The first member need not wait for a second one.
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "broker.session.timeout.ms": SESSION_TIMEOUT_MS,
            # One machine: fifty partitions of offsets would only cost files.
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": self.replication,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": self.replication,
            "transaction.state.log.min.isr": self.min_insync,
            "share.coordinator.state.topic.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": self.replication,
            "share.coordinator.state.topic.min.isr": self.min_insync,
        }


class KafkaNode(Part):
    """One broker of a cluster. What it acknowledged is in its folder and there again after a restart."""

    name = "broker"
    start_limit_s = 180.0  # 3 to 8 s, a minute and more on a busy machine; one that dies is told at once
    stop_limit_s = 20.0

    def __init__(self, folder: Path, number: int) -> None:
        super().__init__(folder)
        self.number = number
        self._cluster: Cluster | None = None

    def join(self, cluster: Cluster) -> None:
        """Tells it which cluster it belongs to, before the first start."""
        self._cluster = cluster

    @property
    def bootstrap(self) -> str:
        """``host:port`` for Kafka clients."""
        return self.address("kafka")

    @property
    def voter(self) -> str:
        """Its place in ``controller.quorum.voters``."""
        return f"{self.number}@{self.address('controller')}"

    def command(self) -> Sequence[str]:
        """``kafka.Kafka`` with its server.properties."""
        return [*_java(HEAP), "kafka.Kafka", str(self._properties)]

    def environment(self) -> Mapping[str, str]:
        """Without options that somebody's shell gives to every Java program."""
        return {name: value for name, value in os.environ.items() if name not in ("JAVA_TOOL_OPTIONS", "CLASSPATH")}

    def prepare(self) -> None:
        """Writes server.properties and formats the log folder once."""
        if self._cluster is None:
            raise StartFailed("a Kafka broker was started before it knew its cluster")
        own = {
            "node.id": self.number,
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{self.address('controller')}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "log.dirs": self.folder / "data",
        }
        lines = [f"{name}={value}" for name, value in {**self._cluster.properties(), **own}.items()]
        self._properties.write_text("\n".join([*lines, ""]), encoding="utf-8")
        if not (self.folder / "data" / "meta.properties").exists():
            self._format(self._cluster.identity)

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _format(self, identity: str) -> None:
        tool = [*_java("-XX:TieredStopAtLevel=1"), "kafka.tools.StorageTool", "format"]
        command = [*tool, f"--cluster-id={identity}", "--config", str(self._properties)]
        with self.log.open("ab") as log:
            done = subprocess.run(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment(),
                timeout=FORMAT_LIMIT_S,
                check=False,
            )
        if done.returncode:
            raise StartFailed(f"{self.name} could not format its log folder.\n{self.log_tail()}")

    def answers(self) -> bool:
        """Whether a Kafka client finds this broker in a cluster that has a leader."""
        return port_open(self.port("kafka")) and brokers_in(self.bootstrap) > 0


def _java(option: str) -> list[str]:
    return [java(), option, f"-Dlog4j2.configurationFile={LOGGING}", "-cp", f"{kafka_jars()}/*"]


class ApacheKafka:
    """A cluster of brokers that are controllers as well; with three, any one may be killed."""

    name = "broker"
    memory_only = False

    def __init__(self, folder: Path, brokers: int = 1) -> None:
        self.nodes = tuple(KafkaNode(folder / f"broker-{number}", number) for number in range(1, brokers + 1))
        self._folder = folder.resolve()

    @property
    def bootstrap(self) -> str:
        """``host:port[,host:port…]`` for Kafka clients."""
        return ",".join(node.bootstrap for node in self.nodes)

    @property
    def pid(self) -> int:
        """Of the first broker that runs; 0 when none does."""
        return next((node.pid for node in self.nodes if node.pid), 0)

    def start(self) -> None:
        """Starts every broker that does not run and returns when each is in the cluster. Raises StartFailed."""
        cluster = Cluster(self._identity(), len(self.nodes), ",".join(node.voter for node in self.nodes))
        try:
            for node in self.nodes:  # together: a lone controller of three has no quorum to answer with
                node.join(cluster)
                if not node.alive():
                    node.launch()
            wait_until_all_answer(self.nodes)
            self._wait_until_complete()
        except BaseException:
            self.kill()
            raise

    def _wait_until_complete(self) -> None:
        end = time.monotonic() + COMPLETE_LIMIT_S
        while brokers_in(self.bootstrap) < len(self.nodes):
            if time.monotonic() > end:
                raise StartFailed(f"the Kafka cluster is not complete after {COMPLETE_LIMIT_S} s.\n{self.log_tail()}")
            time.sleep(POLL_S)

    def log_tail(self) -> str:
        """The last lines of every broker's log."""
        return "\n".join(node.log_tail() for node in self.nodes)

    def _identity(self) -> str:
        """The cluster's id, made once and kept in its folder."""
        file = self._folder / "cluster.id"
        if not file.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            file.write_text(urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("="), encoding="ascii")
        return file.read_text(encoding="ascii")

    def alive(self) -> bool:
        """Whether every broker runs."""
        return all(node.alive() for node in self.nodes)

    def stop(self) -> None:
        """SIGTERM to all together, then SIGKILL: one after the other the last would wait for a quorum in vain."""
        for node in self.nodes:
            node.ask_to_stop()
        for node in self.nodes:
            node.wait_until_stopped(node.stop_limit_s)

    def kill(self) -> None:
        """SIGKILL to all."""
        for node in self.nodes:
            node.kill()

    def restart(self) -> None:
        """Stops and starts all on the same ports and folders."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stops all for good and lets their ports go."""
        self.stop()
        for node in self.nodes:
            node.close()
