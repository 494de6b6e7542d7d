"""One of our own services as a part of the stack: ``triage producer``, ``triage worker``, ``triage worklist``."""

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

from launch.stack.part import ANSWER_LIMIT_S, Part

PACKAGE_ROOT = Path(__file__).resolve().parents[2]  # where ``launch`` and the rooms lie
DRAIN_SPARE_S = 10.0  # beyond the drain a service allows itself
AWAY = "away"  # contracts/ports.py, Service.peers


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
        """Whether it is ready and sees its peers: ready alone may mean an honest 0xA700 to every image."""
        told = self._told()
        return bool(told.get("ready")) and AWAY not in told.get("peers", {}).values()

    def log_tail(self) -> str:
        """The last lines of its log, and what it said of itself."""
        told = self._told()
        return f"{super().log_tail()}\nIts probe says: {json.dumps(told) if told else 'nothing'}"

    def _told(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"{self._probe}/ready", timeout=ANSWER_LIMIT_S) as response:  # noqa: S310  # ours
                told = json.load(response)
        except urllib.error.HTTPError as not_ready:
            told = _json_or_nothing(not_ready)
        except (OSError, HTTPException, ValueError):
            return {}
        return told if isinstance(told, dict) else {}


def _json_or_nothing(answer: urllib.error.HTTPError) -> Any:
    try:
        return json.load(answer)
    except (OSError, ValueError):
        return {}
