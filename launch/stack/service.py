"""One of our own services as a part of the stack: ``triage producer``, ``triage worker``, ``triage worklist``."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from launch.stack.part import Part, http_ok

PACKAGE_ROOT = Path(__file__).resolve().parents[2]  # where ``launch`` and the rooms lie
DRAIN_SPARE_S = 10.0  # beyond the drain a service allows itself


class ServicePart(Part):
    """A service in a process of its own, with its settings in the environment, as a container would have them."""

    start_limit_s = 120.0  # the first group join of the embedded broker on a busy machine

    def __init__(self, folder: Path, command: str, settings: Mapping[str, str], probe: str, drain_s: float) -> None:
        """``probe`` is the ``http://host:port`` of its /live, /ready and /metrics."""
        super().__init__(folder)
        self.name = command
        self.cwd = Path.cwd()  # relative paths in settings mean what they mean to the person who starts us
        self.stop_limit_s = drain_s + DRAIN_SPARE_S
        self._settings = settings
        self._probe = probe

    @property
    def metrics(self) -> str:
        """URL of its Prometheus metrics."""
        return f"{self._probe}/metrics"

    def command(self) -> Sequence[str]:
        """Our own interpreter and command line."""
        return [sys.executable, "-m", "launch.cli", self.name]

    def environment(self) -> Mapping[str, str]:
        """Ours without the settings, then the settings it is to have."""
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("TRIAGE_")}
        places = [str(PACKAGE_ROOT), kept.get("PYTHONPATH", "")]
        return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, places)), **self._settings}

    def answers(self) -> bool:
        """Whether it says that it is ready."""
        return http_ok(f"{self._probe}/ready")
