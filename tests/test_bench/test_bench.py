"""The benches run, say what they measured against, and tell JSON that a script can read."""

import json

import pytest

from bench import __main__ as bench
from bench.figure import Figure, this_machine


def test_model_speed_tells_machine_and_figures_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object with the machine and, per figure, ours, anchor, ratio, aim, holds and note."""
    bench.main(["model_speed", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"machine", "figures"}
    assert told["machine"]["cores"] >= 1
    for figure in told["figures"]:
        assert set(figure) == {"name", "ours", "anchor", "ratio", "aim", "holds", "note"}
        assert figure["ours"] > 0
        assert figure["anchor"] > 0


@pytest.mark.parametrize(("ours", "at_least", "holds"), [(41, True, True), (39, True, False), (39, False, True)])
def test_a_figure_holds_when_it_is_on_the_right_side_of_its_aim(ours: float, at_least: bool, holds: bool) -> None:  # noqa: FBT001  # the cases
    """Throughput must reach its aim, latency must stay under it."""
    assert Figure("x", ours, 20, 40, "", at_least).told()["holds"] is holds


def test_an_unknown_bench_is_a_usage_error() -> None:
    """Status 2, nothing run."""
    with pytest.raises(SystemExit) as ended:
        bench.main(["no_such_bench"])
    assert ended.value.code == 2


def test_the_machine_is_named() -> None:
    """A figure without its machine is worth nothing."""
    machine = this_machine()
    assert machine.processor
    assert machine.memory_gib > 0
