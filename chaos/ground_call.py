"""The real servers that every crew stands on: three brokers of Apache Kafka, Redis, Triton with the stand-in model."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from chaos.control_call import Control
from chaos.scenario import Mood
from launch.stack.apache_kafka import ApacheKafka, KafkaNode
from launch.stack.part import StartFailed, http_ok, wait_until_all_answer
from launch.stack.redis_server import RedisServer
from launch.stack.service import PACKAGE_ROOT
from launch.stack.triton_server import TritonServer

STANDIN = Path(__file__).resolve().with_name("standin")
MODEL = "head_ct_lesion"
ASK_LIMIT_MS = 5000
START_LIMIT_S = 180.0  # three JVMs at once on two cores that have other work, too: give up late


class StandInTriton(TritonServer):
    """Triton with a model whose answers are foretold and whose mood a file tells."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, STANDIN)
        self.mood = Control(self.folder / "mood", Mood.SOUND)
        self._nothing = self.folder / "no-models"

    def environment(self) -> Mapping[str, str]:
        """The model finds our packages and its mood."""
        places = os.pathsep.join(filter(None, (str(PACKAGE_ROOT), os.environ.get("PYTHONPATH", ""))))
        return {**super().environment(), "PYTHONPATH": places, "CHAOS_MOOD_FILE": str(self.mood.file)}

    def knows_model(self) -> bool:
        """Whether the model can be asked: a server with an empty repository is ready, too."""
        return http_ok(f"http://{self.http}/v2/models/{MODEL}/ready")

    @property
    def offers_model(self) -> bool:
        """Whether its repository is the one with the model."""
        return self.repository == STANDIN

    def offer(self, *, model: bool) -> None:
        """From the next start on: the model, or a repository that does not know it."""
        self._nothing.mkdir(parents=True, exist_ok=True)
        self.repository = STANDIN if model else self._nothing


class Ground:
    """Starts with ``start``, ends with ``close``; its parts keep addresses and folders across restarts."""

    def __init__(self, folder: Path, brokers: int) -> None:
        self.kafka = ApacheKafka(folder / "kafka", brokers)
        self.redis = RedisServer(folder / "redis")
        self.triton = StandInTriton(folder / "triton")
        for part in (*self.kafka.nodes, self.redis, self.triton):
            part.start_limit_s = START_LIMIT_S

    def start(self) -> None:
        """Starts what does not run and returns when all answers. Raises StartFailed."""
        for part in (self.triton, self.redis):
            if not part.alive():
                part.launch()
        self.kafka.start()
        wait_until_all_answer([self.redis, self.triton])

    def close(self) -> None:
        """Kills everything: the folder is the rig's, and nobody reads it again."""
        self.kafka.kill()
        for part in (self.triton, self.redis):
            part.kill()
            part.close()
        self.kafka.close()

    def leader(self, topic: str) -> KafkaNode:
        """The broker that leads most partitions of the topic now. Raises StartFailed when none can tell."""
        (told,) = self._asked(lambda admin: admin.describe_topics([topic]))
        leads = Counter(part["leader_id"] for part in told["partitions"])
        return max(self.kafka.nodes, key=lambda node: leads[node.number])

    def topics(self, prefix: str) -> list[str]:
        """Names of the topics that begin so. Raises StartFailed when no broker tells."""
        return [name for name in self._asked(lambda admin: admin.list_topics()) if name.startswith(prefix)]

    def forget(self, prefix: str) -> None:
        """Removes what a crew has left: topics whose name begins so, and everything in Redis, which only it used."""
        with suppress(StartFailed, KafkaError, redis.RedisError):  # left behind it costs room, nothing else
            self._asked(lambda admin: admin.delete_topics(self.topics(prefix)))
            with redis.Redis.from_url(self.redis.url) as client:
                client.flushall()

    def revive_broker(self, node: KafkaNode) -> None:
        """Starts it. It answers once a majority runs: the first ones of a fallen quorum are not waited for."""
        if node.alive():
            return
        node.launch()
        alive = [other for other in self.kafka.nodes if other.alive()]
        if len(alive) > len(self.kafka.nodes) // 2:
            wait_until_all_answer(alive)

    def _asked(self, question: Callable[[KafkaAdminClient], Any]) -> Any:
        running = [node.bootstrap for node in self.kafka.nodes if node.alive()]
        try:
            admin = KafkaAdminClient(
                bootstrap_servers=running, bootstrap_timeout_ms=ASK_LIMIT_MS, request_timeout_ms=ASK_LIMIT_MS
            )
        except (KafkaError, ValueError) as problem:
            raise StartFailed(f"no broker answers: {type(problem).__name__}") from problem
        try:
            return question(admin)
        finally:
            admin.close()
