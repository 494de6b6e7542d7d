"""Appends to the log as anybody may who can reach the brokers: our own services' checks do not stand before it."""

from collections.abc import Iterable

from kafka import KafkaProducer

from chaos.poison import Poison

LIMIT_S = 30.0  # for all of them, on a cluster that works


def append(bootstrap: str, topic: str, records: Iterable[Poison]) -> None:
    """Returns when all in-sync replicas have every record. Raises kafka.errors.KafkaError."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
    try:
        sent = [producer.send(topic, one.value, key=one.key, partition=one.partition) for one in records]
        producer.flush(LIMIT_S)
        for future in sent:
            future.get(LIMIT_S)
    finally:
        producer.close(LIMIT_S)
