"""The jars of Apache Kafka: fetched once by Maven into the user's cache, outside the clone."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launch.stack.part import ProgramMissing, StartFailed

KAFKA_VERSION = "4.1.1"
FETCH_LIMIT_S = 300  # 43 MB
POM = Path(__file__).with_name("pom.xml")


def kafka_jars() -> Path:
    """The folder of the broker's jars, fetched when missing. Raises ProgramMissing and StartFailed."""
    libs = cache_folder() / "libs"
    if libs.is_dir():
        return libs
    maven = shutil.which("mvn")
    if maven is None:
        raise ProgramMissing("Apache Kafka's jars are fetched by Maven, which is not installed: apt install maven")
    with _one_at_a_time(cache_folder()):
        if not libs.is_dir():
            _fetch(maven, libs)
    return libs


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/lesion-triage/kafka-<version>`` (``~/.cache`` when unset)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lesion-triage" / f"kafka-{KAFKA_VERSION}"


def java() -> str:
    """The ``java`` on PATH. Raises ProgramMissing."""
    found = shutil.which("java")
    if found is None:
        raise ProgramMissing("Apache Kafka needs Java 17, which is not installed: apt install openjdk-17-jre-headless")
    return found


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(maven: str, libs: Path) -> None:
    """Into a folder of its own, renamed when complete: an interrupted fetch is never taken for the whole."""
    with tempfile.TemporaryDirectory(dir=libs.parent) as trial:
        pom = shutil.copy(POM, trial)
        jars = Path(trial) / "libs"
        _run_maven([maven, "-B", "-q", "-f", pom, "dependency:copy-dependencies", f"-DoutputDirectory={jars}"])
        jars.rename(libs)


def _run_maven(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartFailed(f"Maven could not fetch Apache Kafka {KAFKA_VERSION}: {error}") from error
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-8:])
        raise StartFailed(f"Maven could not fetch Apache Kafka {KAFKA_VERSION} (status {done.returncode}).\n{tail}")
