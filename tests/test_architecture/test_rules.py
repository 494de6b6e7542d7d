"""The rooms rule, the ``_in``/``_out``/``_call`` rule and the rules of the house."""

import ast
import importlib.metadata
import re

import pytest

from tests.test_architecture import rules

MODULES = rules.modules()


def test_rooms_import_only_contracts() -> None:
    """No room imports another room; only launch imports them all."""
    found = [v for module, path in MODULES for v in rules.room_violations(path.read_text(), module)]
    assert found == []


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("producer.intake", "import worker.scoring.decode"),
        ("worker.scoring.decode", "from worker.flagging import study"),
        ("worker.flagging.study", "from worker import scoring"),
        ("worker.scoring.decode", "from ..flagging import study"),
        ("worklist.redis_in", "def f():\n    from launch import cli"),
        ("contracts.events", "import producer"),
        ("producer.intake", "import training.network"),
    ],
)
def test_a_planted_import_of_another_room_is_found(module: str, planted: str) -> None:
    """The rooms rule fails when it is broken, also inside functions and with relative imports."""
    assert rules.room_violations(planted, module)


def test_only_edges_touch_the_world() -> None:
    """Network, disk, clock and broker are touched only in modules named ``_in``, ``_out`` or ``_call``."""
    found = [v for module, path in MODULES for v in rules.world_violations(path.read_text(), module)]
    assert found == []


@pytest.mark.parametrize(
    "planted",
    [
        "import time",
        "from time import monotonic",
        "import socket",
        "from pathlib import Path",
        "from kafka import KafkaConsumer",
        "import tritonclient.grpc",
        "from importlib import resources",
        "x = open('f')",
        "from datetime import datetime\nx = datetime.now()",
        "def f():\n    import os",
    ],
)
def test_a_planted_touch_of_the_world_is_found(planted: str) -> None:
    """The edge rule fails when it is broken; the same line in an edge module is fine."""
    assert rules.world_violations(planted, "worker.flagging.study")
    assert not rules.world_violations(planted, "worker.flagging.kafka_in")


def test_every_room_of_the_design_is_there() -> None:
    """The rules speak of real folders: a renamed room cannot slip out of them."""
    names = {rules.room_of(module) for module, _ in MODULES}
    assert names >= {*rules.ROOMS, "launch", "training"}


def test_no_module_is_a_drawer_for_everything() -> None:
    """No utils, misc, common or helpers."""
    drawers = {"utils", "util", "misc", "common", "helpers", "helper"}
    assert [module for module, _ in MODULES if module.rpartition(".")[2] in drawers] == []


def test_every_test_states_the_fact_it_proves() -> None:
    """Each test function has a docstring."""
    silent = []
    for module, path in MODULES:
        if not module.startswith("tests."):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            is_test = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
            if is_test and not ast.get_docstring(node):  # type: ignore[arg-type]
                silent.append(f"{module}:{node.name}")  # type: ignore[attr-defined]
    assert silent == []


def test_every_exception_from_the_linter_has_a_reason() -> None:
    """Behind each ``noqa`` stands why."""
    bare = re.compile(r"#\s*noqa(:[ A-Z0-9,]*)?$", re.MULTILINE)
    assert [module for module, path in MODULES if bare.search(path.read_text())] == []


def test_no_locked_dependency_ships_a_name_of_ours() -> None:
    """An installed distribution with a top-level ``worker`` or ``contracts`` would shadow ours."""
    owners = importlib.metadata.packages_distributions()
    foreign = {name: set(owners.get(name, [])) - {"lesion-triage"} for name in (*rules.OURS, "triton_models")}
    assert {name: who for name, who in foreign.items() if who} == {}


def test_the_wheel_holds_the_rooms_and_nothing_else() -> None:
    """Tests, benches and training are not part of the application."""
    text = (rules.ROOT / "pyproject.toml").read_text()
    packages = re.search(r"targets\.wheel\]\npackages = \[(.*?)\]", text)
    assert packages
    assert set(re.findall(r'"(\w+)"', packages[1])) == {"contracts", "producer", "worker", "worklist", "launch"}


def test_no_service_imports_torch() -> None:
    """PyTorch is for training only: 4.7 GB that no service and no demo carries."""
    rooms = (*rules.ROOMS, "launch")
    found = [
        f"{module}:{line}"
        for module, path in MODULES
        if rules.room_of(module) in rooms
        for name, line in rules.imports(path.read_text(), module.rpartition(".")[0])
        if name.split(".")[0] == "torch"
    ]
    assert found == []
    assert "\ntorch==" not in (rules.ROOT / "requirements/local.txt").read_text()
