"""A part of the matrix, once each with small loads, on the rig that the other tests of the harness share.

The whole matrix is `make chaos`.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from chaos.matrix import matrix
from chaos.rig_call import RunningRig
from chaos.run_call import HEALTHY_S, one_run, sending_s
from chaos.scenario import Fault, Load

HOLD = 0.13  # eight seconds without brokers instead of sixty
SEED = 1
# kill -9 of every part, and the faults that one part of the promise each stands or falls with
CHOSEN = (
    "kill_producer kill_worker kill_worklist kill_triton kill_redis kill_leader insync_lost zombie_worker "
    "redis_emptied redis_truncated triton_nan triton_hangs link_reset disk_full rolling_restart_workers "
    "poison_study poison_event five_times"
).split()


@pytest.fixture(scope="module")
def struck(rig: RunningRig) -> Iterator[RunningRig]:
    """Services of this module's own: what other tests have sent is not in their list."""
    rig.renew()
    yield rig
    rig.heal()


def small(fault: Fault) -> Fault:
    """The same blow, under a load that is sent in some seconds."""
    load = replace(fault.load, studies=10, images=(5, 7), rate=15.0 * fault.load.copies, associations=4)
    return replace(fault, load=load)


@pytest.mark.stack
@pytest.mark.kafka
@pytest.mark.parametrize("name", CHOSEN)
def test_nothing_is_lost_and_nothing_silently_normal(name: str, struck: RunningRig) -> None:
    """Under this fault all invariants hold, and the stack is healthy again afterwards."""
    outcome = one_run(struck, small(matrix(HOLD)[name]), SEED)
    assert outcome.violations == (), "\n".join((outcome.struck, *outcome.violations))
    assert outcome.studies == 10
    assert outcome.settled == outcome.acknowledged > 40
    struck.heal()
    struck.wait_healthy(HEALTHY_S)


def test_at_least_twelve_faults_run_with_the_tests() -> None:
    """The issue's number; all of them are rows of the matrix."""
    assert len(CHOSEN) >= 12
    assert set(CHOSEN) <= set(matrix())


def test_the_blow_falls_while_scanners_send() -> None:
    """The moment is a share of the sending, which a load's rate and size tell."""
    assert sending_s(Load(studies=10, images=(5, 7), rate=15.0)) == pytest.approx(4.0)
    assert sending_s(Load(rate=None)) > 0
