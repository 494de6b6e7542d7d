"""Asks a broker whether it does its work: the real client lists the brokers of the cluster."""

import logging

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

ASK_LIMIT_MS = 2000
_CLIENT_LOG = logging.getLogger("kafka")


def brokers_in(bootstrap: str) -> int:
    """How many brokers the cluster lists, 0 when it cannot tell."""
    level = _CLIENT_LOG.level
    _CLIENT_LOG.setLevel(logging.CRITICAL)  # a server that is still starting is no news
    try:
        return _brokers_in(bootstrap)
    except (KafkaError, OSError, ValueError):
        return 0
    finally:
        _CLIENT_LOG.setLevel(level)


def _brokers_in(bootstrap: str) -> int:
    admin = KafkaAdminClient(
        bootstrap_servers=bootstrap, bootstrap_timeout_ms=ASK_LIMIT_MS, request_timeout_ms=ASK_LIMIT_MS
    )
    try:
        return len(admin.describe_cluster()["brokers"])
    finally:
        admin.close()
