"""Real work for each kind of server, done by the real client: what a caller wants from it."""

import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import redis
import tritonclient.grpc as triton_client
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from launch.stack.apache_kafka import ApacheKafka
from launch.stack.redis_server import RedisServer
from launch.stack.tansu import Tansu
from launch.stack.triton_server import TritonServer

REDIS_KEY = "proof"


def works(part: Any) -> bool:
    """Whether the server does its work now."""
    return _WORK[type(part)](part)


def _broker_works(part: Tansu | ApacheKafka) -> bool:
    topic = f"proof-{uuid.uuid4().hex[:8]}"
    replication = 1 if isinstance(part, Tansu) else len(part.nodes)
    make_topic(part.bootstrap, topic, replication)
    value = uuid.uuid4().bytes
    append(part.bootstrap, topic, value)
    return read(part.bootstrap, topic, 1) == [value]


def make_topic(bootstrap: str, topic: str, replication: int = 1) -> None:
    """One topic of one partition."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        admin.create_topics([NewTopic(topic, 1, replication)])
    finally:
        admin.close()


def append(bootstrap: str, topic: str, value: bytes, within_s: float = 30.0, block_ms: int = 20_000) -> None:
    """Returns when the record is acknowledged by every in-sync replica."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", request_timeout_ms=5000, max_block_ms=block_ms)
    try:
        producer.send(topic, value, partition=0).get(within_s)
    finally:
        producer.close(timeout=1)


def read(bootstrap: str, topic: str, count: int, within_ms: int = 20_000) -> list[bytes]:
    """The first records of the topic's partition, fewer when no more come in time."""
    # a broker that has just come back may not know its offsets yet: then from the beginning, never from the end
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        fetch_max_wait_ms=100,
        consumer_timeout_ms=within_ms,
        auto_offset_reset="earliest",
    )
    try:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek(TopicPartition(topic, 0), 0)
        values: list[bytes] = []
        for record in consumer:
            values.append(record.value)
            if len(values) == count:
                break
        return values
    finally:
        consumer.close()


def _redis_works(part: RedisServer) -> bool:
    with redis.Redis.from_url(part.url) as client:
        value = uuid.uuid4().hex
        client.set(REDIS_KEY, value)
        return bool(client.get(REDIS_KEY) == value.encode())


def _triton_works(part: TritonServer) -> bool:
    values = np.array([1.0, -2.5, 3.0], dtype=np.float32)
    given = triton_client.InferInput("VALUES", [3], "FP32")
    given.set_data_from_numpy(values)
    with triton_client.InferenceServerClient(part.grpc) as client:
        answer = client.infer("echo", [given], client_timeout=20)
    return bool(np.array_equal(answer.as_numpy("DOUBLED"), values * 2))


_WORK: dict[type, Callable[[Any], bool]] = {
    Tansu: _broker_works,
    ApacheKafka: _broker_works,
    RedisServer: _redis_works,
    TritonServer: _triton_works,
}
