"""Who may see what."""

import pytest
from pydantic import SecretStr

from contracts.errors import SettingsError
from contracts.settings import WorklistSettings
from tests.test_worklist.view_writer import PATIENT_WORDS, item
from worklist.access import Role, check_settings, host_allowed, is_loopback, role_of, visible

READER, OPS = "reader-token-0123456789", "ops-token-0123456789ab"


def _settings(host: str = "127.0.0.1", reader: str = "", ops: str = "") -> WorklistSettings:
    return WorklistSettings(host=host, reader_token=SecretStr(reader), ops_token=SecretStr(ops))


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",  # noqa: S104  # the very thing that is refused
        "::",
        "10.1.2.3",
        "worklist.hospital.example",
        "",
        "localhost.evil.example",
    ],
)
def test_a_host_that_others_can_reach_needs_a_token(host: str) -> None:
    """Without tokens nothing but loopback is bound: the start stops with a sentence."""
    with pytest.raises(SettingsError, match="no token is set"):
        check_settings(_settings(host))
    check_settings(_settings(host, reader=READER))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "[::1]", "LOCALHOST"])
def test_loopback_needs_no_token(host: str) -> None:
    """Loopback is open to the people of this machine."""
    check_settings(_settings(host))
    assert is_loopback(host)


@pytest.mark.parametrize(
    ("reader", "ops", "said"),
    [
        ("tiny", "", "shorter than"),
        ("", "tiny", "shorter than"),
        (READER, READER, "equal"),
        ("with a blank in the middle", "", "without spaces"),
        ("ключ-ключ-ключ-ключ", "", "ASCII"),
    ],
)
def test_a_token_that_protects_nothing_stops_the_start(reader: str, ops: str, said: str) -> None:
    """Short, equal and unsendable tokens are wrong settings; the sentence does not hold the token."""
    with pytest.raises(SettingsError, match=said) as problem:
        check_settings(_settings(reader=reader, ops=ops))
    assert all(token not in str(problem.value) for token in (reader, ops) if token)


@pytest.mark.parametrize(
    ("header", "role"),
    [
        (f"Bearer {READER}", Role.READER),
        (f"bearer  {READER} ", Role.READER),
        (f"Bearer {OPS}", Role.OPS),
        (f"Bearer {READER[:-1]}", None),
        (f"Bearer {READER}x", None),
        (f"Basic {READER}", None),
        (READER, None),
        ("Bearer ", None),
        ("Bearer \udcff", None),
        ("", None),
        (None, None),
    ],
)
def test_a_token_gives_its_role_and_anything_else_none(header: str | None, role: Role | None) -> None:
    """Only the exact token of a role, sent as a bearer token, lets in."""
    assert role_of(_settings(reader=READER, ops=OPS), header) is role


def test_without_tokens_everybody_on_loopback_reads() -> None:
    """On loopback without tokens everything is open, whatever header comes."""
    assert role_of(_settings(), None) is Role.READER
    assert role_of(_settings(), "Bearer nonsense") is Role.READER


def test_an_empty_token_of_one_role_does_not_open_the_other() -> None:
    """With only the ops token set, nobody is a reader, and an empty token is none."""
    settings = _settings(ops=OPS)
    assert role_of(settings, f"Bearer {OPS}") is Role.OPS
    assert role_of(settings, "Bearer ") is None


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8090", True),
        ("localhost", True),
        ("[::1]:8090", True),
        ("evil.example", False),
        ("evil.example:8090", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_without_tokens_only_loopback_names_are_answered(host: str, allowed: bool) -> None:  # noqa: FBT001  # the cases
    """A page elsewhere cannot read the list through a browser here by DNS rebinding; with tokens any name is fine."""
    assert host_allowed(_settings(), host) is allowed
    assert host_allowed(_settings(reader=READER), host)


def test_ops_see_the_queue_without_patients() -> None:
    """No patient data remains in what ops see; the rest of the item is the same."""
    study = item("1.2.3")
    seen = visible(study, Role.OPS)
    assert not [word for word in PATIENT_WORDS if word in seen.model_dump_json()]
    assert seen.model_dump(exclude={"patient", "accession_number", "study_description"}) == study.model_dump(
        exclude={"patient", "accession_number", "study_description"}
    )
    assert visible(study, Role.READER) == study
