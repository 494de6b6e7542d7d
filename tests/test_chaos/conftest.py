"""The running rig, shared by the tests of the harness: three brokers, Redis, Triton, two producers, two workers."""

from collections.abc import Iterator

import pytest

from chaos.rig_call import RunningRig, running_rig
from launch.stack.part import ProgramMissing
from tests.conftest import Folder, missing


@pytest.fixture(scope="session")
def rig(server_folder: Folder) -> Iterator[RunningRig]:
    """Healthy at the start; a test that strikes it heals it (mark the test ``stack`` and ``kafka``)."""
    try:
        with running_rig(server_folder("rig")) as running:
            yield running
    except ProgramMissing as error:
        missing(str(error))
