"""The cache of Apache Kafka's jars: fetched once, never half, never into the clone."""

from pathlib import Path

import pytest

from launch.stack.kafka_jars import KAFKA_VERSION, POM, java, kafka_jars
from launch.stack.part import ProgramMissing, StartFailed


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a PATH on which a test puts its own Maven."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}:/bin:/usr/bin")
    (tmp_path / "programs").mkdir()
    return tmp_path / "cache" / "lesion-triage" / f"kafka-{KAFKA_VERSION}"


def maven(tmp_path: Path, script: str) -> Path:
    """A Maven that fails, or that only notes that it was called."""
    program = tmp_path / "programs" / "mvn"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def test_without_maven_the_sentence_says_what_to_install(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither cached nor fetchable: a missing program, not a crash."""
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    with pytest.raises(ProgramMissing, match="apt install maven"):
        kafka_jars()
    with pytest.raises(ProgramMissing, match="apt install openjdk"):
        java()


def test_a_fetch_that_fails_leaves_no_half_cache(cache: Path, tmp_path: Path) -> None:
    """Some jars and then an error: the next start must fetch again instead of running on half a broker."""
    maven(
        tmp_path, 'for last; do :; done; mkdir "${last#*=}"; touch "${last#*=}/one.jar"; echo no route to host; exit 1'
    )
    with pytest.raises(StartFailed, match=r"(?s)status 1.*no route to host"):
        kafka_jars()
    assert not (cache / "libs").exists()
    assert [entry.name for entry in cache.iterdir()] == ["lock"]


def test_a_fetch_is_made_once_into_the_cache(cache: Path, tmp_path: Path) -> None:
    """The second call takes what is there; the pom stays the only thing of it beside our code."""
    maven(tmp_path, f'for last; do :; done; mkdir "${{last#*=}}"; echo called >> {tmp_path}/calls')
    assert kafka_jars() == kafka_jars() == cache / "libs"
    assert (tmp_path / "calls").read_text() == "called\n"
    assert not (POM.parent / "libs").exists()
    assert not (POM.parent / "target").exists()


def test_the_pom_and_the_cache_name_the_same_version() -> None:
    """A new version in the pom must not be looked for in the old one's folder."""
    assert f"<version>{KAFKA_VERSION}</version>" in POM.read_text(encoding="utf-8")
