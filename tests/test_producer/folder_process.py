"""A producer in a process of its own, to be killed: ``python -m tests.test_producer.folder_process BOOTSTRAP …``."""

import sys
import threading

from contracts.hooks import Silent
from launch.wiring.producer import build
from tests.test_producer.running import settings_of


def main(bootstrap: str, prefix: str, folder: str, settle_s: str) -> None:
    """Runs until killed."""
    settings = settings_of(bootstrap, prefix, {}, {}, folder=folder, folder_settle_s=float(settle_s))
    (service,) = build(settings, Silent())
    service.run(threading.Event())


if __name__ == "__main__":
    main(*sys.argv[1:])
