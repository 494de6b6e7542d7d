"""``triage producer`` as a process of its own, to be signalled: its settings, addresses, log and memory."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contracts.settings import Settings
from launch.settings_in import variable_of
from tests.test_producer.running import wait_until

GRACE_S = 60.0  # what a test waits for the end; the service's own limit is below
ROOT = Path(__file__).resolve().parent.parent.parent


class Process:
    """One started producer."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self._log = folder / "producer.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "launch.cli", "producer"], cwd=ROOT, env=_environment(settings), stderr=log
            )

    def told(self, event: str) -> dict[str, Any] | None:
        """The first line of the log about that event."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return next((line for line in lines if line.get("event") == event), None)

    def wait_for(self, event: str) -> dict[str, Any]:
        """Waits for that line."""
        wait_until(lambda: self.told(event) is not None, 60)
        found = self.told(event)
        assert found is not None
        return found

    @property
    def addresses(self) -> dict[str, str]:
        """As told when ready."""
        addresses: dict[str, str] = self.wait_for("ready")["addresses"]
        return addresses

    @property
    def dicom(self) -> tuple[str, int]:
        """Where the DICOM door listens."""
        host, _, port = self.addresses["dicom"].rpartition(":")
        return host, int(port)

    def most_memory_bytes(self) -> int:
        """The peak of its resident memory so far."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def ask_to_end(self) -> None:
        """SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def ended(self) -> tuple[int, float]:
        """Exit code and how long it took from now."""
        began = time.monotonic()
        return self._process.wait(GRACE_S), time.monotonic() - began

    def log(self) -> str:
        """Everything it wrote."""
        return self._log.read_text()

    def close(self) -> None:
        """Whatever happened, it is gone."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@contextmanager
def producer_process(settings: Settings, folder: Path) -> Iterator[Process]:
    """Started, and gone at the end."""
    folder.mkdir(exist_ok=True)
    process = Process(settings, folder)
    try:
        yield process
    finally:
        process.close()


def _environment(settings: Settings) -> dict[str, str]:
    """What differs from the defaults, as variables."""
    changed = settings.model_dump(exclude_unset=True)
    variables = {
        variable_of(f"{section}.{name}"): json.dumps(value) if isinstance(value, (list, tuple, dict)) else str(value)
        for section, values in changed.items()
        for name, value in values.items()
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRIAGE_")}
    return clean | variables | {"TRIAGE_PROBES__PRODUCER_PORT": "0"}
