"""Every input that ever broke something, given to its target again. Their names begin with the target's."""

from pathlib import Path

import pytest

from chaos.fuzz.child_call import HANG_S
from chaos.fuzz.found_out import target_of
from chaos.fuzz.pure import TARGETS
from chaos.fuzz.run_call import replay

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom tells what is wrong with what is made wrong
FOUND = sorted((Path(__file__).parent / "found").glob("*.bin"))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_what_once_broke_a_target_does_so_no_more(path: Path) -> None:
    """A mended fault stays mended."""
    assert replay(path, lambda name: TARGETS[name].make(), HANG_S * 12) == "nothing wrong"


def test_there_are_such_inputs_and_each_has_its_target() -> None:
    """An empty folder, or a misspelt name, would prove nothing."""
    assert FOUND
    assert {target_of(path) for path in FOUND} <= set(TARGETS)
