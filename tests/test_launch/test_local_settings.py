"""What `triage local` gives its services: the person's settings over the stack's defaults, its addresses over both."""

from pathlib import Path

import pytest

from contracts.errors import SettingsError
from contracts.settings import Settings
from launch.local_settings import Broker, combined, decided, defaults, given, model_repository
from launch.settings_in import load


def effective(environ: dict[str, str], *assignments: str, broker: Broker = Broker.TANSU) -> Settings:
    """The settings a service would have."""
    said = given(environ, assignments)
    own = decided(broker, "127.0.0.1:1", "redis://127.0.0.1:2/0", "127.0.0.1:3")
    return load(environ=combined(said, defaults(broker, Path("/state")), own))


def test_one_machine_gets_four_partitions_and_one_replica() -> None:
    """The embedded defaults stand where the person is silent."""
    kafka = effective({}).kafka
    assert (kafka.partitions, kafka.replication, kafka.min_insync) == (4, 1, 1)
    assert effective({}).payload.url == "file:///state/payload"


@pytest.mark.parametrize(("broker", "memory_only"), [(Broker.TANSU, True), (Broker.KAFKA, False)])
def test_memory_and_rebalances_follow_the_broker(broker: Broker, *, memory_only: bool) -> None:
    """Tansu keeps nothing and moves all partitions at a rebalance; Apache Kafka does neither."""
    kafka = effective({}, broker=broker).kafka
    assert kafka.memory_only is memory_only
    assert kafka.cooperative is not memory_only


@pytest.mark.parametrize(
    "environ",
    [{"TRIAGE_KAFKA__PARTITIONS": "8"}, {"triage_kafka__partitions": "8"}, {"TRIAGE_KAFKA": '{"partitions": 8}'}],
    ids=["variable", "lower case", "section as JSON"],
)
def test_the_environment_wins_over_the_stacks_defaults(environ: dict[str, str]) -> None:
    """Whichever way a variable is written, it is not overruled, and what it does not say keeps the stack's default."""
    kafka = effective(environ).kafka
    assert (kafka.partitions, kafka.replication) == (8, 1)


def test_a_file_wins_over_the_stacks_defaults(tmp_path: Path) -> None:
    """The TOML file of the person counts as much as a variable."""
    file = tmp_path / "triage.toml"
    file.write_text("[kafka]\npartitions = 6\n[flagging]\nquiet_s = 4\n")
    settings = effective({"TRIAGE_CONFIG": str(file)})
    assert (settings.kafka.partitions, settings.kafka.replication, settings.flagging.quiet_s) == (6, 1, 4.0)


def test_an_assignment_wins_over_the_environment() -> None:
    """--set is nearest to the person."""
    assert effective({"TRIAGE_FLAGGING__QUIET_S": "7"}, "flagging.quiet_s=3").flagging.quiet_s == 3.0


def test_an_entry_of_a_table_can_be_assigned() -> None:
    """One reading target is set, the others stay."""
    target = effective({}, "flagging.reading_target_s.critical=60").flagging.reading_target_s
    assert sorted(target.values()) == [60.0, 3600.0, 86400.0]


def test_addresses_the_stack_knows_win_over_everything() -> None:
    """A variable left over from elsewhere does not send the services to another broker."""
    settings = effective({"TRIAGE_KAFKA__BOOTSTRAP": "elsewhere:9092", "triage_redis__url": "redis://elsewhere/0"})
    assert settings.kafka.bootstrap == "127.0.0.1:1"
    assert settings.redis.url.get_secret_value() == "redis://127.0.0.1:2/0"
    assert settings.triton.url == "127.0.0.1:3"


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("flagging.quiet_s", "takes section.name=value"),
        ("flagging.quite_s=3", "There is no setting flagging.quite_s"),
        ("kafka.bootstrap=elsewhere:9092", "cannot be set here"),
        ("kafka.partitions=many", "must be a whole number"),
        ("quiet_s=3", "There is no setting quiet_s"),
    ],
)
def test_a_wrong_assignment_is_a_sentence(assignment: str, sentence: str) -> None:
    """Nothing is started with a setting that is not understood."""
    with pytest.raises(SettingsError, match=sentence):
        given({}, [assignment])


def test_other_variables_are_left_alone() -> None:
    """Only TRIAGE_ variables are settings."""
    assert given({"PATH": "/bin", "HOME": "/root"}, []).variables == {}


def test_the_repository_beside_the_packages_serves_where_none_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another folder the clone's models are found; a set repository is taken as it is, even when it is missing."""
    monkeypatch.chdir(tmp_path)
    assert (model_repository(given({}, [])) / "head_ct_lesion").parent.name == "triton_models"
    assert model_repository(given({}, [])).is_dir()
    assert model_repository(given({}, ["model_repository=mine"])) == tmp_path / "mine"
