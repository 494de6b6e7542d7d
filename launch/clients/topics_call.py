"""Topics: created once with what durability asks for, and compared with it at every start."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, errors
from kafka.admin import ConfigResource, ConfigResourceType

from contracts.errors import PeerAway, SettingsError
from contracts.hooks import Happening, Hooks
from contracts.settings import KafkaSettings
from launch.clients.connect_call import PEER, admin, topics_of
from launch.clients.line_call import RECORD_OVERHEAD_BYTES

SEGMENT_MS = 24 * 3600 * 1000  # compaction and retention touch closed segments only: one is closed every day
FOREVER_MS = -1  # Kafka's word for no limit
CREATE_TIMEOUT_MS = 10_000

Configs = dict[str, str]


@dataclass(frozen=True, slots=True)
class Found:
    """A topic as the broker tells it. ``configs`` is empty where the broker tells none (Tansu)."""

    name: str
    partitions: int
    replication: int
    configs: Configs


@dataclass(frozen=True, slots=True)
class Remark:
    """Something a topic is not. ``endangers``: acknowledged records can be lost through it."""

    sentence: str
    endangers: bool = False


def wanted(settings: KafkaSettings) -> dict[str, Configs]:
    """Topic name → the configuration it is created with."""
    topics = topics_of(settings)
    every = {
        "message.timestamp.type": "LogAppendTime",  # a study's quiet period is by the broker's clock
        "max.message.bytes": str(settings.max_record_bytes + RECORD_OVERHEAD_BYTES),
        "min.insync.replicas": str(settings.min_insync),
        "unclean.leader.election.enable": "false",
        "segment.ms": str(SEGMENT_MS),
    }
    scans = every | {"cleanup.policy": "delete", "retention.ms": str(int(settings.scan_retention_s * 1000))}
    return {
        topics.stat: scans,
        topics.routine: scans,
        topics.events: every | {"cleanup.policy": "compact", "retention.ms": str(FOREVER_MS)},
        topics.dead: scans,
        topics.audit: every | {"cleanup.policy": "delete", "retention.ms": str(FOREVER_MS)},
        topics.commitments: every | {"cleanup.policy": "compact", "retention.ms": str(FOREVER_MS)},
    }


def ensure_topics(settings: KafkaSettings, hooks: Hooks) -> list[str]:
    """Creates missing topics and returns what is to be warned of, as sentences.

    Raises SettingsError where the topics cannot be used (partition counts differ) or, with ``require_durable``, are not
    safe; PeerError while the broker cannot be asked.
    """
    create_missing(settings)
    warnings = check(settings)
    hooks.happened(Happening.PEER_UP, 1.0, peer=PEER)
    return warnings


def create_missing(settings: KafkaSettings) -> None:
    """Creates the topics that are missing. Listing them first matters: asking for a topic by name can create it with
    the broker's own partition count (kafka-python ignores allow_auto_create_topics).
    """
    with admin(settings) as client:
        existing = set(client.list_topics())
        missing = wanted(settings).keys() - existing
        if missing and not settings.create_topics:
            raise SettingsError(f"Topics are missing and create_topics is off: {', '.join(sorted(missing))}.")
        if missing:
            _create(client, settings, missing, _count_for_new(client, settings, existing))


def _count_for_new(client: KafkaAdminClient, settings: KafkaSettings, existing: set[str]) -> int:
    """A topic that a later version of ours adds gets the count that the older ones have, whatever the setting says."""
    topics = topics_of(settings)
    older = set(topics.all) - {topics.commitments}
    if not older <= existing:
        return settings.partitions
    return one_count({told["name"]: len(told["partitions"]) for told in client.describe_topics(sorted(older))})


def _create(client: KafkaAdminClient, settings: KafkaSettings, names: set[str], partitions: int) -> None:
    configs = wanted(settings)
    for name in sorted(names):
        topic = {
            "num_partitions": partitions,
            "replication_factor": settings.replication,
            "configs": configs[name],
        }
        try:
            client.create_topics({name: topic}, timeout_ms=CREATE_TIMEOUT_MS)
        except errors.TopicAlreadyExistsError:
            continue  # another service started at the same moment
        except (errors.InvalidReplicationFactorError, errors.InvalidConfigurationError) as problem:
            raise SettingsError(_cannot_create(name, settings, problem)) from problem
    client.wait_for_topics(sorted(names), timeout_ms=CREATE_TIMEOUT_MS)


def _cannot_create(name: str, settings: KafkaSettings, problem: Exception) -> str:
    return (
        f"Topic {name} cannot be created with replication {settings.replication} and "
        f"min_insync {settings.min_insync}: the broker says {type(problem).__name__}."
    )


def partition_count(settings: KafkaSettings) -> int:
    """The one partition count of all topics. Raises SettingsError where they differ, PeerError while unknown."""
    return one_count({found.name: found.partitions for found in _find(settings)})


def one_count(counts: Mapping[str, int]) -> int:
    """One study is one partition of every topic, so the counts must agree. Raises SettingsError."""
    if len(set(counts.values())) != 1:
        told = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise SettingsError(f"All topics must have one partition count, but {told}.")
    return next(iter(counts.values()))


def check(settings: KafkaSettings) -> list[str]:
    """What the existing topics are not, as sentences. Raises like ``ensure_topics``."""
    found = _find(settings)
    count = one_count({topic.name: topic.partitions for topic in found})
    remarks = [remark for topic in found for remark in remarks_on(topic, wanted(settings)[topic.name], settings)]
    if settings.memory_only:
        remarks.insert(
            0, Remark("The broker keeps records in memory only: nothing survives a restart.", endangers=True)
        )
    if count != settings.partitions:
        remarks.append(Remark(f"The topics have {count} partitions; the setting {settings.partitions} is not used."))
    dangers = [remark.sentence for remark in remarks if remark.endangers]
    if settings.require_durable and dangers:
        raise SettingsError(" ".join(("require_durable is on.", *dangers)))
    return [remark.sentence for remark in remarks]


def scans_kept_s(settings: KafkaSettings) -> float | None:
    """The longest that a scan, or its dead letter, can stay on its topic as that is configured now; None: for ever.

    A broker deletes whole segments, so a record stays until the youngest beside it is too old. One that tells no
    configuration promises no deletion. Raises PeerError.
    """
    topics = topics_of(settings)
    found = [topic.configs for topic in _find(settings) if topic.name in (topics.stat, topics.routine, topics.dead)]
    return None if not all(map(_deletes, found)) else max(map(_kept_ms, found)) / 1000.0


def _deletes(configs: Configs) -> bool:
    known = "segment.ms" in configs and int(configs.get("retention.ms", FOREVER_MS)) != FOREVER_MS
    return known and configs.get("cleanup.policy") == "delete"


def _kept_ms(configs: Configs) -> int:
    return int(configs["retention.ms"]) + int(configs["segment.ms"])


def _find(settings: KafkaSettings) -> list[Found]:
    names = list(wanted(settings))
    with admin(settings) as client:
        if missing := set(names) - set(client.list_topics()):
            raise PeerAway(PEER, f"topics are missing: {', '.join(sorted(missing))}")
        told = {topic["name"]: topic for topic in client.describe_topics(names)}
        configs = _configs(client, names)
    return [_found(told[name], configs.get(name, {})) for name in names]


def _configs(client: KafkaAdminClient, names: list[str]) -> dict[str, Configs]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    told = client.describe_configs(resources, config_filter="all").get("topic", {})
    return {name: {key: str(config["value"]) for key, config in configs.items()} for name, configs in told.items()}


def _found(told: Mapping[str, Any], configs: Configs) -> Found:
    partitions = told["partitions"]
    replication = min((len(partition["replica_nodes"]) for partition in partitions), default=0)
    return Found(told["name"], len(partitions), replication, configs)


def remarks_on(topic: Found, asked: Configs, settings: KafkaSettings) -> list[Remark]:
    """Pure: compares one topic with what it would be created with."""
    remarks = []
    if topic.replication < settings.replication:
        sentence = f"Topic {topic.name} has {topic.replication} replicas, {settings.replication} are expected."
        remarks.append(Remark(sentence, endangers=True))
    for config, compare in _COMPARED.items():
        have = topic.configs.get(config)
        if have is not None and not compare(have, asked[config]):
            sentence = f"Topic {topic.name} has {config}={have}, {asked[config]} is expected."
            remarks.append(Remark(sentence, endangers=config in _ENDANGERING))
    insync = topic.configs.get("min.insync.replicas", "0")
    if int(insync) > topic.replication:
        remarks.append(
            Remark(f"Topic {topic.name} takes no record: min.insync.replicas={insync} exceeds its replicas.")
        )
    return remarks


def _same(have: str, asked: str) -> bool:
    return have.lower() == asked.lower()


def _at_least(have: str, asked: str) -> bool:
    return int(have) >= int(asked)


def _as_long(have: str, asked: str) -> bool:
    if int(have) == FOREVER_MS:
        return True
    return int(asked) != FOREVER_MS and int(have) >= int(asked)


_COMPARED = {
    "cleanup.policy": _same,
    "retention.ms": _as_long,
    "min.insync.replicas": _at_least,
    "max.message.bytes": _at_least,
    "message.timestamp.type": _same,
    "unclean.leader.election.enable": _same,
}
# A compacted scan topic keeps one image of a study; a study.events that is not compacted forgets by age.
_ENDANGERING = {"cleanup.policy", "retention.ms", "min.insync.replicas", "unclean.leader.election.enable"}
