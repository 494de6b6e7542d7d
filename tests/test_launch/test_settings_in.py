"""Settings at the door: precedence, and one sentence when something is wrong."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import SettingsError
from contracts.settings import Settings
from launch.settings_in import MASK, load, names, variable_of
from launch.settings_print import as_toml, masked

SECRET = "hunter2-very-secret"  # noqa: S105 — made up, to be looked for


def toml(folder: Path, text: str) -> Path:
    path = folder / "triage.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(environ: dict[str, str], config: Path | None = None) -> str:
    with pytest.raises(SettingsError) as refused:
        load(config, environ)
    return str(refused.value)


def test_environment_wins_over_file_wins_over_default(tmp_path: Path) -> None:
    """Each of three settings comes from the highest place that names it; a section may come from several."""
    path = toml(tmp_path, '[kafka]\nbootstrap = "file:1"\ntopic_prefix = "file-"\n')
    kafka = load(path, {"TRIAGE_KAFKA__BOOTSTRAP": "env:1"}).kafka
    assert (kafka.bootstrap, kafka.topic_prefix, kafka.partitions) == ("env:1", "file-", Settings().kafka.partitions)


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    """TRIAGE_CONFIG is the file where no --config is given, and --config wins over it."""
    path = toml(tmp_path, '[log]\nlevel = "ERROR"\n')
    assert load(environ={"TRIAGE_CONFIG": str(path)}).log.level == "ERROR"
    assert load(path, {"TRIAGE_CONFIG": "/nowhere.toml"}).log.level == "ERROR"


def test_names_of_variables_may_be_lower_case_and_lists_may_have_commas() -> None:
    """``triage_producer__called_aes=A, B`` is read as two AE titles; JSON works too."""
    for value in ("A, B", '["A", "B"]'):
        assert load(environ={"triage_producer__called_aes": value}).producer.called_aes == ("A", "B")


def test_one_entry_of_a_table_can_be_set_alone(tmp_path: Path) -> None:
    """The other entries of an overtake table keep their defaults, from either source."""
    path = toml(tmp_path, "[flagging.overtake_s]\nurgent = 60\n")
    overtake = load(path, {"TRIAGE_FLAGGING__OVERTAKE_S__ROUTINE": "120"}).flagging.overtake_s
    assert {k.value: v for k, v in overtake.items()} == {"critical": 0.0, "urgent": 60.0, "routine": 120.0}


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (
            "TRIAGE_KAFKA__BOOTSTAP",
            "h:1",
            "There is no setting TRIAGE_KAFKA__BOOTSTAP: perhaps TRIAGE_KAFKA__BOOTSTRAP",
        ),
        ("TRIAGE_NONSENSE", "1", "There is no setting TRIAGE_NONSENSE: triage config prints those there are."),
        (
            "TRIAGE_KAFKA__PARTITIONS",
            "-3",
            "kafka.partitions (TRIAGE_KAFKA__PARTITIONS) must be greater than 0, and a whole number was given.",
        ),
        (
            "TRIAGE_KAFKA__PARTITIONS",
            "many",
            "kafka.partitions (TRIAGE_KAFKA__PARTITIONS) must be a whole number, and text was given.",
        ),
        ("TRIAGE_LOG__LEVEL", "LOUD", "must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR', and text was given."),
        ("TRIAGE_KAFKA", "{broken", "kafka (TRIAGE_KAFKA) must be JSON, or one variable for each setting."),
        ("TRIAGE_PRODUCER__CALLING_AES", '["CT1', "producer.calling_aes (TRIAGE_PRODUCER__CALLING_AES) must be JSON"),
        ("TRIAGE_FLAGGING__OVERTAKE_S", "{1", "flagging.overtake_s (TRIAGE_FLAGGING__OVERTAKE_S) must be JSON"),
        ("TRIAGE_PRODUCER__LANE_RULES", '[{"lane": "stat"}]', "a lane rule needs at least one condition"),
        ("TRIAGE_PRODUCER__LANE_RULES", '[{"lane": "stat", "calling": "X"}]', "producer.lane_rules.0.calling"),
    ],
)
def test_a_wrong_variable_is_named_in_one_sentence(variable: str, value: str, said: str) -> None:
    """The sentence names the setting and what is allowed, on one line that ends with a full stop."""
    sentence = refusal({variable: value})
    assert said in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert not sentence.endswith("..")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[kafka]\nbootstap = 1\n", "perhaps kafka.bootstrap is meant"),
        ("[kafke]\nbootstrap = 1\n", "There is no setting kafke.bootstrap"),
        ("[kafka]\npartitions = true\n[redis]\ntimeout_s = -1\n", "redis.timeout_s"),
        ("kafka = 3\n", "kafka"),
        ("[kafka\n", "is not TOML: line 1"),
        (f'[redis]\nurl = "redis://{MASK}@h"\n', "holds the mask"),
    ],
)
def test_a_wrong_file_is_named_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    """The sentence names the file, the key and, for a near miss, what is probably meant."""
    path = toml(tmp_path, text)
    sentence = refusal({}, path)
    assert said in sentence
    assert str(path) in sentence
    assert "\n" not in sentence


def test_a_missing_file_stops_the_start() -> None:
    """A settings file that was asked for is never passed over."""
    assert "/nowhere.toml cannot be read" in refusal({"TRIAGE_CONFIG": "/nowhere.toml"})


@pytest.mark.parametrize("name", sorted(n for n in names() if n.endswith(("_s", "_token", "password", "url", "port"))))
def test_no_refusal_repeats_what_was_given(name: str) -> None:
    """A secret in the wrong variable is not told to whoever reads the logs."""
    try:
        told = repr(load(environ={variable_of(name): SECRET}))
    except SettingsError as refused:
        told = str(refused)
    assert SECRET not in told or name in ("triton.url", "payload.url")


def test_the_variables_kubernetes_adds_for_a_service_are_left_alone() -> None:
    """A Service named triage-worklist gives every pod TRIAGE_WORKLIST_PORT=tcp://… and more."""
    links = {
        "TRIAGE_WORKLIST_SERVICE_HOST": "10.0.0.1",
        "TRIAGE_WORKLIST_SERVICE_PORT": "80",
        "TRIAGE_WORKLIST_SERVICE_PORT_HTTP": "80",
        "TRIAGE_WORKLIST_PORT": "tcp://10.0.0.1:80",
        "TRIAGE_WORKLIST_PORT_80_TCP": "tcp://10.0.0.1:80",
        "TRIAGE_WORKLIST_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert load(environ=links) == Settings()


def test_every_setting_has_a_variable_that_changes_it() -> None:
    """No setting is out of the environment's reach: each printed value goes back in through its variable."""
    printed = masked(Settings())
    for name in names():
        value = printed
        for part in name.split("."):
            value = value[part]
        text = str(value).replace("'", '"') if isinstance(value, dict) else value
        if not isinstance(value, list):
            assert load(environ={variable_of(name): str(text)}) == Settings(), name


def test_what_config_prints_is_read_back_to_the_same_settings(tmp_path: Path) -> None:
    """Printed TOML is a settings file, lists, tables and quoting included, as long as no secret is set."""
    environ = {
        "TRIAGE_PRODUCER__CALLED_AES": 'A"1,B',
        "TRIAGE_FLAGGING__MAX_WAIT_S": "90000",
        "TRIAGE_LOG__LEVEL": "DEBUG",
    }
    settings = load(environ=environ)
    assert load(toml(tmp_path, as_toml(settings)), {}) == settings


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1))
def test_a_set_secret_is_never_printed(secret: str) -> None:
    """Whatever a secret is, it is masked in TOML and in plain types."""
    settings = load(environ={"TRIAGE_KAFKA__SASL_PASSWORD": f"<{secret}>"})
    assert tomllib.loads(as_toml(settings))["kafka"]["sasl_password"] == MASK
    assert masked(settings)["kafka"]["sasl_password"] == MASK


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        (f"redis://u:{SECRET}@h:1/0", f"redis://{MASK}@h:1/0"),
        (f"rediss://:{SECRET}@h/0", f"rediss://{MASK}@h/0"),
        (f"redis://h/0?password={SECRET}", f"redis://h/0?{MASK}"),
        (f"redis://u:p@{SECRET}@h", f"redis://{MASK}@h"),
        (SECRET, MASK),
    ],
)
def test_of_a_url_only_scheme_host_and_path_are_printed(url: str, shown: str) -> None:
    """Where the queue is may be seen, how to get in may not."""
    assert masked(load(environ={"TRIAGE_REDIS__URL": url}))["redis"]["url"] == shown
