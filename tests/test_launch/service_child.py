"""A process with one service, run as ``triage`` runs its own: what the tests of signals and exit codes start.

``python -m tests.test_launch.service_child BEHAVIOUR``
"""

import sys
import threading
import time
from collections.abc import Callable, Mapping

from contracts.errors import SettingsError
from contracts.hooks import Happening, Stage
from launch.log_out import Bridge, JsonLog
from launch.observe_out import Observer
from launch.probes_out import Probes
from launch.run import run_services

DRAIN_S = 3.0


class Child:
    """Does what its behaviour says."""

    name = "child"

    def __init__(self, behaviour: Callable[[threading.Event], None]) -> None:
        self._behaviour = behaviour

    def run(self, stop: threading.Event) -> None:
        """See contracts.ports.Service."""
        self._behaviour(stop)

    def ready(self) -> bool:
        """Whether it can answer."""
        return True

    def peers(self) -> Mapping[str, str]:
        """What it sees."""
        return {"kafka": "up"}

    def addresses(self) -> Mapping[str, str]:
        """Where it listens."""
        return {"door": "127.0.0.1:1"}


def drains(stop: threading.Event) -> None:
    stop.wait()
    sys.stdout.write("drained\n")
    sys.stdout.flush()


def raises(stop: threading.Event) -> None:
    stop.wait(0.2)
    raise ValueError("Doe^John")


def returns(stop: threading.Event) -> None:
    stop.wait(0.2)


def finds_a_wrong_setting(stop: threading.Event) -> None:
    stop.wait(0.2)
    raise SettingsError("kafka.require_durable is set, and the broker is not.")


def never_drains(stop: threading.Event) -> None:
    stop.wait()
    time.sleep(60)


BEHAVIOURS = {f.__name__: f for f in (drains, raises, returns, finds_a_wrong_setting, never_drains)}


def main(behaviour: str) -> int:
    log = JsonLog("child", "INFO")
    Bridge(log).install()
    observer = Observer(log)
    observer.happened(Happening.RECEIVED, door="dicom", lane="stat")
    with observer.stage(Stage.INTAKE):
        pass
    services = [Child(BEHAVIOURS[behaviour])]
    try:
        return run_services(services, Probes(services, observer, "127.0.0.1", 0), log, DRAIN_S)
    except SettingsError as wrong:  # as launch/cli.py does
        sys.stdout.write(str(wrong))
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
