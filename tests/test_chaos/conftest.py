"""The running rig, shared by the tests of the harness: three brokers, Redis, Triton, two producers, two workers."""

from collections.abc import Iterator

import pytest

from chaos.rig_call import RunningRig, running_rig
from launch.stack.part import ProgramMissing
from tests.conftest import Folder, missing

LIMIT_S = 900.0  # the first test also waits for ten processes to start, on a machine that may have other work


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses the rig is given the time to start it."""
    for item in items:
        if "rig" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LIMIT_S))


@pytest.fixture(scope="package")
def rig(server_folder: Folder) -> Iterator[RunningRig]:
    """Healthy at the start; a test that strikes it heals it (mark the test ``stack`` and ``kafka``)."""
    try:
        with running_rig(server_folder("rig")) as running:
            yield running
    except ProgramMissing as error:
        missing(str(error))
