"""The grammars drawn by hypothesis: what it finds it shrinks to the smallest choices that still fail."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from chaos.fuzz.drawn import inputs
from chaos.fuzz.pure import TARGETS

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom tells what is wrong with what is made wrong
EXAMPLES = 60  # of each target; the thousands come from the seeded dice
UNHURRIED = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


@pytest.mark.parametrize("name", TARGETS)
def test_no_drawn_input_makes_a_target_raise_what_it_does_not_declare(name: str) -> None:
    """As the run of 50,000, with hypothesis's own idea of what is worth trying."""
    target = TARGETS[name]
    call = target.make()

    @UNHURRIED
    @given(inputs(target.grammar))
    def holds(data: bytes) -> None:
        call(data)

    holds()


def test_a_failure_is_shrunk_to_its_smallest_input() -> None:
    """Planted: a target that cannot bear two bytes of one value. Hypothesis hands back the smallest such input."""
    found: list[bytes] = []

    @UNHURRIED
    @given(inputs(lambda dice: dice.octets(40)))
    def holds(data: bytes) -> None:
        if len(data) > 1:
            found.append(data)
            raise AssertionError("planted")

    run: Any = holds
    with pytest.raises(AssertionError):
        run()
    assert found[-1] == b"\0\0"
