"""Topics on real brokers: created once, compared at every start."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from contracts.errors import PeerAway, SettingsError
from contracts.hooks import Silent
from contracts.settings import KafkaSettings
from launch.clients.kafka_call import check, ensure_topics, group_of, partition_count, topics_of
from launch.clients.topics_call import Found, one_count, remarks_on, scans_kept_s, wanted


def settings_for(bootstrap: str, prefix: str, **more: object) -> KafkaSettings:
    """Settings for a single broker."""
    given = {"partitions": 3, "replication": 1, "min_insync": 1} | more
    return KafkaSettings.model_validate({"bootstrap": bootstrap, "topic_prefix": prefix, **given})


def test_missing_topics_are_created_once_with_one_partition_count(broker: str, topic_prefix: str) -> None:
    """A first start makes all five, a second one finds them; on both brokers there is nothing to warn of."""
    settings = settings_for(broker, topic_prefix)
    assert ensure_topics(settings, Silent()) == []
    assert ensure_topics(settings, Silent()) == []
    assert partition_count(settings) == 3


def test_services_that_start_together_create_them_together(broker: str, topic_prefix: str) -> None:
    """Losing the race for a topic is no error."""
    settings = settings_for(broker, topic_prefix)
    with ThreadPoolExecutor(4) as pool:
        warnings = list(pool.map(lambda _: ensure_topics(settings, Silent()), range(4)))
    assert warnings == [[], [], [], []]


@pytest.mark.kafka
def test_the_created_topics_are_configured_for_durability(kafka_broker: str, topic_prefix: str) -> None:
    """Apache Kafka tells back what was asked for: events compacted, scans kept, broker time, the record limit."""
    settings = settings_for(kafka_broker, topic_prefix, scan_retention_s=3600.0)
    ensure_topics(settings, Silent())
    topics = topics_of(settings)
    admin = KafkaAdminClient(bootstrap_servers=kafka_broker)
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in topics.all]
    told = admin.describe_configs(resources, config_filter="all")["topic"]
    admin.close()
    assert {name: told[name]["cleanup.policy"]["value"] for name in topics.all} == {
        topics.stat: "delete",
        topics.routine: "delete",
        topics.events: "compact",
        topics.dead: "delete",
        topics.audit: "delete",
        topics.commitments: "compact",
    }
    assert told[topics.stat]["retention.ms"]["value"] == "3600000"
    assert told[topics.audit]["retention.ms"]["value"] == "-1"
    for name in topics.all:
        assert told[name]["message.timestamp.type"]["value"] == "LogAppendTime"
        assert int(told[name]["max.message.bytes"]["value"]) > settings.max_record_bytes


def make(bootstrap: str, topics: dict[str, int], **configs: str) -> None:
    """Somebody else makes topics, with counts of their own."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    named = {name: {"num_partitions": n, "replication_factor": 1, "configs": configs} for name, n in topics.items()}
    admin.create_topics(named, wait_for_metadata=True)
    admin.close()


def test_topics_whose_partition_counts_differ_stop_the_start(broker: str, topic_prefix: str) -> None:
    """One study is one partition of every topic: a sentence names the counts."""
    settings = settings_for(broker, topic_prefix)
    make(broker, {topics_of(settings).stat: 2})
    with pytest.raises(SettingsError, match=r"scans\.stat has 2.*study\.events has 3"):
        ensure_topics(settings, Silent())


def test_an_existing_count_wins_over_the_setting_and_is_told(broker: str, topic_prefix: str) -> None:
    """Partition counts are fixed at creation: another setting is warned of, not obeyed."""
    ensure_topics(settings_for(broker, topic_prefix), Silent())
    [warning] = ensure_topics(settings_for(broker, topic_prefix, partitions=5), Silent())
    assert "3 partitions" in warning


def test_a_topic_that_a_later_version_adds_gets_the_count_of_the_older_ones(broker: str, topic_prefix: str) -> None:
    """A cluster of the first version, of another count than the setting, is used, not refused."""
    settings = settings_for(broker, topic_prefix)
    topics = topics_of(settings)
    make(broker, dict.fromkeys(set(topics.all) - {topics.commitments}, 2))
    ensure_topics(settings, Silent())
    assert partition_count(settings) == 2


def test_missing_topics_stop_the_start_where_they_may_not_be_created(broker: str, topic_prefix: str) -> None:
    """With create_topics off the sentence names what is missing, and nothing is made by asking."""
    settings = settings_for(broker, topic_prefix, create_topics=False)
    for _ in range(2):
        with pytest.raises(SettingsError, match=r"scans\.stat"):
            ensure_topics(settings, Silent())
    with pytest.raises(PeerAway):
        check(settings)


@pytest.mark.kafka
def test_an_unsafe_topic_is_warned_of_and_refused_where_durability_is_required(
    kafka_broker: str, topic_prefix: str
) -> None:
    """Short retention and a compacted scan topic are sentences; with require_durable they stop the start."""
    settings = settings_for(kafka_broker, topic_prefix)
    stat = topics_of(settings).stat
    make(kafka_broker, {stat: 3}, **{"cleanup.policy": "compact", "retention.ms": "1000"})
    warnings = " ".join(ensure_topics(settings, Silent()))
    for part in ("cleanup.policy=compact", "retention.ms=1000", "message.timestamp.type=CreateTime"):
        assert f"{stat} has {part}" in warnings
    with pytest.raises(SettingsError, match="require_durable"):
        ensure_topics(settings.model_copy(update={"require_durable": True}), Silent())


@pytest.mark.kafka
def test_how_long_scans_are_kept_is_what_the_topics_say(kafka_broker: str, topic_prefix: str) -> None:
    """The longest of the scan topics, a segment's time with it, whatever our setting is; -1 is for ever."""
    settings = settings_for(kafka_broker, topic_prefix, scan_retention_s=3600.0)
    topics = topics_of(settings)
    make(kafka_broker, {topics.dead: 3}, **{"retention.ms": "7200000", "segment.ms": "60000"})
    ensure_topics(settings, Silent())
    assert scans_kept_s(settings) == 3600.0 + 86400.0
    other = settings_for(kafka_broker, f"{topic_prefix}b", scan_retention_s=3600.0)
    make(kafka_broker, {topics_of(other).dead: 3}, **{"retention.ms": "-1"})
    ensure_topics(other, Silent())
    assert scans_kept_s(other) is None


@pytest.mark.kafka
def test_a_replication_the_cluster_cannot_give_stops_the_start(kafka_broker: str, topic_prefix: str) -> None:
    """The default of three replicas on one broker is said in a sentence, not in a stack of exceptions."""
    with pytest.raises(SettingsError, match="replication 3"):
        ensure_topics(settings_for(kafka_broker, topic_prefix, replication=3, min_insync=2), Silent())


def test_a_memory_only_broker_is_said_and_refused_where_durability_is_required(tansu: str, topic_prefix: str) -> None:
    """The sentence of design decision 4: nothing survives a restart."""
    settings = settings_for(tansu, topic_prefix, memory_only=True)
    assert any("nothing survives a restart" in warning for warning in ensure_topics(settings, Silent()))
    with pytest.raises(SettingsError, match="nothing survives a restart"):
        ensure_topics(settings.model_copy(update={"require_durable": True}), Silent())


def test_an_away_broker_is_a_peer_error(topic_prefix: str) -> None:
    """A service asks again; it does not end."""
    with pytest.raises(PeerAway):
        ensure_topics(settings_for("127.0.0.1:1", topic_prefix), Silent())


def test_groups_carry_the_prefix() -> None:
    """Sites that share a cluster do not share groups."""
    assert group_of(settings_for("h:1", "site."), "triage-scoring") == "site.triage-scoring"


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 64), min_size=1))
def test_one_count_is_the_count_or_a_sentence(counts: dict[str, int]) -> None:
    """Property: counts agree or the start stops."""
    if len(set(counts.values())) == 1:
        assert one_count(counts) == next(iter(counts.values()))
    else:
        with pytest.raises(SettingsError):
            one_count(counts)


@pytest.mark.parametrize(
    ("config", "value", "endangers"),
    [
        ("cleanup.policy", "compact,delete", True),
        ("min.insync.replicas", "1", True),
        ("unclean.leader.election.enable", "true", True),
        ("retention.ms", "60000", True),
        ("message.timestamp.type", "CreateTime", False),
        ("max.message.bytes", "1048588", False),
    ],
)
def test_each_departure_is_one_sentence(config: str, value: str, *, endangers: bool) -> None:
    """What is compared, and whether acknowledged records can be lost through it."""
    settings = KafkaSettings()
    name = topics_of(settings).stat
    asked = wanted(settings)[name]
    [remark] = remarks_on(Found(name, 24, 3, asked | {config: value}), asked, settings)
    assert f"{config}={value}" in remark.sentence
    assert remark.endangers is endangers


def test_more_than_asked_is_no_departure() -> None:
    """Longer retention, more in-sync replicas and larger records are the operator's right."""
    settings = KafkaSettings()
    name = topics_of(settings).stat
    asked = wanted(settings)[name]
    more = asked | {"retention.ms": "-1", "min.insync.replicas": "3", "max.message.bytes": "99999999"}
    assert remarks_on(Found(name, 24, 3, more), asked, settings) == []


def test_fewer_replicas_endanger_and_may_take_no_record() -> None:
    """min.insync.replicas above the replicas is a topic that refuses every record: said apart."""
    settings = KafkaSettings()
    name = topics_of(settings).stat
    asked = wanted(settings)[name]
    remarks = remarks_on(Found(name, 24, 1, asked), asked, settings)
    assert [remark.endangers for remark in remarks] == [True, False]
    assert "takes no record" in remarks[1].sentence
