"""The addresses of requestors: from TOML, from the environment, from ``--set``; what the page shows is what is read."""

import json
import re
from pathlib import Path

import pytest

from contracts.errors import SettingsError
from launch.local_settings import given
from launch.settings_in import load
from producer.commitment_reports import Rules

PAGE = Path(__file__).parents[2] / "docs" / "commitment.md"


def test_the_settings_file_of_the_page_is_read(tmp_path: Path) -> None:
    """A table of AE titles, one with a space in it; the environment's line beside it says the same."""
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "triage.toml"
    file.write_text(block)
    peers = load(file, environ={}).producer.commitment_peers
    assert peers == {"PACS1": "192.0.2.7:104", "CT ONE": "192.0.2.8:104"}
    (as_json,) = re.findall(r"```\nTRIAGE_PRODUCER__COMMITMENT_PEERS='(.*?)'\n```", PAGE.read_text())
    assert load(environ={"TRIAGE_PRODUCER__COMMITMENT_PEERS": as_json}).producer.commitment_peers == peers


def test_the_assignment_of_the_page_is_read() -> None:
    """``triage local --set`` takes the same as JSON."""
    (assignment,) = re.findall(r"triage local --set '(.*?)'", PAGE.read_text())
    assert given({}, [assignment]).settings.producer.commitment_peers == {"ORTHANC": "127.0.0.1:4242"}


def test_the_environment_takes_json_or_one_variable_a_peer() -> None:
    """A variable's name tells no case, so a title may differ in case; an exact one wins."""
    as_json = {"TRIAGE_PRODUCER__COMMITMENT_PEERS": json.dumps({"CT1": "h:1", "ct1": "h:2"})}
    rules = Rules(load(environ=as_json).producer.commitment_peers, 1.0, 1.0)
    assert [rules.address(title) for title in ("CT1", "ct1", "CT2")] == ["h:1", "h:2", None]
    one = load(environ={"TRIAGE_PRODUCER__COMMITMENT_PEERS__CT1": "h:3"})
    assert Rules(one.producer.commitment_peers, 1.0, 1.0).address("CT1") == "h:3"


@pytest.mark.parametrize("address", ["nowhere", "host:", "host:0", "host:70000", ":104", "host:port"])
def test_an_address_that_is_none_stops_the_start(address: str) -> None:
    """With a sentence that does not repeat it."""
    with pytest.raises(SettingsError, match=r"commitment_peers.*host:port"):
        load(environ={"TRIAGE_PRODUCER__COMMITMENT_PEERS": json.dumps({"CT1": address})})


@pytest.mark.parametrize("title", ["", "   ", "SEVENTEEN-LETTERS"])
def test_a_title_that_is_none_stops_the_start(title: str) -> None:
    """PS3.5 6.2: one to sixteen characters."""
    with pytest.raises(SettingsError, match="AE title"):
        load(environ={"TRIAGE_PRODUCER__COMMITMENT_PEERS": json.dumps({title: "host:104"})})
