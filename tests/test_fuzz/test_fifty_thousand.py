"""Fifty thousand malformed inputs at every pure target and at the doors of a running stack, beside a sound scanner."""

from pathlib import Path

import pytest

from chaos.fuzz.doors_call import DOORS
from chaos.fuzz.pure import TARGETS
from chaos.fuzz.result import GROWTH_MIB
from chaos.fuzz.run_call import Wanted, run

INPUTS = 50_000
SEED = 20261122


@pytest.mark.stack
@pytest.mark.timeout(900)
def test_fifty_thousand_inputs_break_nothing_and_a_sound_scanner_is_served(tmp_path: Path) -> None:
    """No crash, no hang over 5 s, growth within 64 MiB; every image of the scanner is stored and settled once."""
    result = run(Wanted(INPUTS, SEED, tmp_path, tell=False))
    told = result.told()
    assert result.inputs == INPUTS
    assert set(result.targets) == {*TARGETS, *DOORS}
    assert [(one.name, one.files) for one in result.targets.values() if one.crashes or one.hangs] == []
    assert told["totals"]["largest_growth_mib"] <= GROWTH_MIB
    assert result.scanner.sent > 50
    assert result.scanner.sent == result.scanner.stored == result.scanner.settled
    assert sum(result.targets[name].inputs for name in DOORS) > 4_000
