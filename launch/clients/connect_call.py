"""Reaching the broker: how kafka-python's clients are configured, opened, and what its exceptions become."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from kafka import KafkaAdminClient, errors
from kafka.net.compat import KafkaNetClient

from contracts.errors import PeerAway, PeerBusy, PeerError, PeerRefused, PeerTimeout
from contracts.names import Topics
from contracts.settings import KafkaSettings

PEER = "kafka"
BOOTSTRAP_MS = 3_000  # longest wait for a first answer; whoever needs the broker longer tries again
REQUEST_TIMEOUT_MS = 5_000  # a broker that holds a request longer is taken as gone; well under ack_timeout_s
RECONNECT_BACKOFF_MAX_MS = 1_000  # a broker that returns is noticed within a second

Client = TypeVar("Client")

# kafka-python's exception → ours; the first class that matches decides.
ERRORS: tuple[tuple[type[Exception], type[PeerError]], ...] = (
    (errors.MessageSizeTooLargeError, PeerRefused),
    (errors.RecordListTooLargeError, PeerRefused),
    (errors.InvalidRecordError, PeerRefused),
    (errors.InvalidTopicError, PeerRefused),
    (errors.PolicyViolationError, PeerRefused),
    (errors.AuthorizationError, PeerRefused),
    (errors.SaslAuthenticationFailedError, PeerRefused),
    (errors.UnsupportedSaslMechanismError, PeerRefused),
    (errors.OffsetOutOfRangeError, PeerRefused),
    (errors.NotEnoughReplicasError, PeerBusy),
    (errors.NotEnoughReplicasAfterAppendError, PeerBusy),
    (errors.ThrottlingQuotaExceededError, PeerBusy),
    (errors.RequestTimedOutError, PeerTimeout),
    (errors.KafkaTimeoutError, PeerTimeout),
    (errors.KafkaError, PeerAway),  # fatal producer states too: a new producer mends them, so asking again helps
    (TypeError, PeerRefused),  # a record that cannot be put into bytes
    (ValueError, PeerRefused),  # as above, and a partition that does not exist
)


def peer_error(problem: BaseException) -> PeerError:
    """Our error for one of kafka-python's. Its text is left behind: it can repeat what was in a record."""
    ours = next((ours for theirs, ours in ERRORS if isinstance(problem, theirs)), PeerAway)
    return ours(PEER, type(problem).__name__)


@contextmanager
def mapped() -> Iterator[None]:
    """Foreign exceptions stop here; kafka-python also throws bare RuntimeErrors and asserts on closed sockets."""
    try:
        yield
    except PeerError:
        raise
    except (errors.KafkaError, OSError, RuntimeError, AssertionError) as problem:
        raise peer_error(problem) from problem


def topics_of(settings: KafkaSettings) -> Topics:
    """The topic names below the configured prefix."""
    return Topics(settings.topic_prefix)


def group_of(settings: KafkaSettings, name: str) -> str:
    """A consumer group's name below the configured prefix."""
    return f"{settings.topic_prefix}{name}"


def client_config(settings: KafkaSettings) -> dict[str, Any]:
    """What every client of kafka-python is given."""
    config: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap.split(","),
        "bootstrap_timeout_ms": BOOTSTRAP_MS,
        "reconnect_backoff_max_ms": RECONNECT_BACKOFF_MAX_MS,
        "security_protocol": settings.security_protocol,
    }
    optional = {
        "ssl_cafile": settings.ssl_cafile,
        "ssl_certfile": settings.ssl_certfile,
        "ssl_keyfile": settings.ssl_keyfile,
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password.get_secret_value(),
    }
    return config | {name: value for name, value in optional.items() if value}


def opened(make: Callable[..., Client], config: dict[str, Any]) -> Client:
    """Makes a client; when its constructor fails, its sockets and its thread are ended (kafka-python leaves them)."""
    nets: list[KafkaNetClient] = []

    def kept(**given: Any) -> KafkaNetClient:
        nets.append(KafkaNetClient(**given))
        return nets[-1]

    try:
        with mapped():
            return make(**config, kafka_client=kept)
    except PeerError as problem:
        for net in nets:
            net.close()
        if isinstance(problem, PeerTimeout):  # so it names a broker that refuses connections, too
            raise PeerAway(PEER, "no broker answers at the bootstrap addresses") from problem
        raise


@contextmanager
def admin(settings: KafkaSettings) -> Iterator[KafkaAdminClient]:
    """An admin client for one conversation. Raises PeerError."""
    config = client_config(settings) | {"request_timeout_ms": REQUEST_TIMEOUT_MS}
    client = opened(functools.partial(KafkaAdminClient, client_id="triage-admin"), config)
    try:
        with mapped():
            yield client
    finally:
        client.close()
