"""A running service as strangers meet it: the embedded stack, its processes, what they say of themselves."""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from chaos.fuzz.child_call import rss_bytes
from launch.local_settings import Broker, given
from launch.local_stack import LocalStack

SERVICES = ("producer", "worker", "worklist")
QUIET_S = 3.0  # studies close soon, so that the fold of what strangers sent does not pile up
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_EXPECTED_FAULTS = {'where="topics"'}  # what ``ensure_topics`` has to say of a broker in memory


@dataclass(slots=True)
class Site:
    """The stack, seen from outside."""

    stack: LocalStack

    @property
    def dicom(self) -> tuple[str, int]:
        """The C-STORE door."""
        return _address(self.stack.addresses.dicom)

    @property
    def stow(self) -> tuple[str, int]:
        """The STOW-RS door."""
        return _address(self.stack.addresses.stow.removeprefix("http://"))

    @property
    def worklist(self) -> tuple[str, int]:
        """The API."""
        return _address(self.stack.addresses.worklist.removeprefix("http://").rstrip("/"))

    def pids(self) -> Mapping[str, int]:
        """Of our own services: another number means that one died and was started again."""
        return {name: self.stack.pids()[name] for name in SERVICES}

    def memory(self) -> Mapping[str, int]:
        """Resident bytes of each service."""
        return {name: rss_bytes(pid) for name, pid in self.pids().items() if Path(f"/proc/{pid}/statm").exists()}

    def faults(self) -> Mapping[str, float]:
        """Errors that a guard of ours caught and nobody expected, by place."""
        found: dict[str, float] = {}
        for name in SERVICES:
            for metric, labels, value in self._metrics(name):
                if metric == "triage_faults_total" and labels not in _EXPECTED_FAULTS:
                    found[f"{name} {labels}"] = value
        return found

    def tracebacks(self) -> Mapping[str, float]:
        """In the services' logs: an exception that no guard caught."""
        logs = {service.name: service.log for service in self.stack.services.values()}
        return {f"{name} log": float(path.read_bytes().count(b"Traceback (most recent")) for name, path in logs.items()}

    def lag(self) -> float | None:
        """Records that the worker has not settled; None while it does not tell."""
        told = [value for metric, _, value in self._metrics("worker") if metric == "triage_lag_records"]
        return sum(told) if told else None

    def _metrics(self, service: str) -> list[tuple[str, str, float]]:
        try:
            text = httpx.get(self.stack.addresses.metrics[service], timeout=10.0).text
        except httpx.HTTPError:
            return []
        return [(name, labels, float(value)) for name, labels, value in _SAMPLE.findall(text)]


@contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    """The embedded stack with the model that is shipped."""
    said = given({}, [f"flagging.quiet_s={QUIET_S}"], None)
    with LocalStack(said, _say, Broker.TANSU, folder) as stack:
        yield Site(stack)


def _say(sentence: str) -> None:
    print(f"stack: {sentence}", file=sys.stderr, flush=True)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)
