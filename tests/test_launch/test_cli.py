"""The command line as a person meets it: real processes, sentences on standard error, exit codes."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from launch.commands import _COMMANDS

ROOT = Path(__file__).resolve().parents[2]


def triage(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """``python -m launch.cli`` in an environment without other settings."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TRIAGE_")}
    command = [sys.executable, "-m", "launch.cli", *arguments]
    env |= {"COLUMNS": "140", **variables}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=ROOT, env=env)


def test_help_names_every_command_and_imports_none() -> None:
    """Help comes without the packages of any service: their modules are blocked here, and it does not matter."""
    code = (
        "import sys; [sys.modules.__setitem__(m, None) for m in "
        "('pydicom', 'pynetdicom', 'redis', 'kafka', 'fastapi', 'tritonclient', 'numpy', 'uvicorn', 'torch')]; "
        "from launch.cli import main; main(['--help'])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert told.returncode == 0, told.stderr
    for name, command in _COMMANDS.items():
        assert re.search(rf"\b{name}\b", told.stdout), name
        assert command.help.split()[0] in told.stdout
    assert "not for diagnosis" in " ".join(told.stdout.split())


@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_every_command_loads_and_has_help(name: str) -> None:
    """What help promises is there."""
    told = triage(name, "--help")
    assert told.returncode == 0, told.stderr
    assert "Usage" in told.stdout
    assert "-completion" not in told.stdout


def test_help_of_every_command_needs_no_package_of_the_training() -> None:
    """Where the services run there is no PyTorch: `triage train --help` and its commands' help come all the same."""
    code = (
        "import sys; [sys.modules.__setitem__(m, None) for m in "
        "('torch', 'onnx', 'onnxscript', 'nilearn', 'scipy', 'skimage', 'sklearn', 'PIL')]; "
        "from typer.testing import CliRunner; from launch.commands import app; "
        "told = [(line, CliRunner().invoke(app, [*line.split(), '--help'])) for line in sys.argv[1:]]; "
        "sys.exit([(line, t.output) for line, t in told if t.exit_code or 'Usage' not in t.output] or None)"
    )
    command = [sys.executable, "-c", code, *_COMMANDS, "train slices", "train evaluate", "train demo-heads"]
    told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    assert told.returncode == 0, told.stderr


def test_training_without_its_packages_is_a_sentence() -> None:
    """Help came without PyTorch; work does not, and says what to install."""
    code = "import sys; sys.modules['torch'] = None; from launch.cli import main; main(['train', 'slices'])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert told.returncode == 1
    needed = "triage: triage train needs the package torch: pip install 'lesion-triage[train]'."
    assert told.stderr.splitlines() == [needed]


@pytest.mark.parametrize("imported", ["typer", "launch.commands", "pydantic", "launch.local", "launch.local_stack"])
def test_an_interrupt_while_everything_is_imported_is_a_word_and_130(imported: str) -> None:
    """Ctrl-C in the first moments of `triage local`, at the import of that module: no traceback."""
    code = (
        "import os, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == sys.argv[1]: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from launch.cli import app; app(['local'])"
    )
    command = [sys.executable, "-c", code, imported]
    told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert (told.returncode, told.stdout, told.stderr) == (130, "", "triage: interrupted\n")


def test_version_is_that_of_the_distribution() -> None:
    """--version says which one is installed."""
    assert re.fullmatch(r"triage \d+\.\d+\.\d+\S*\n", triage("--version").stdout)


def test_config_prints_the_effective_values_as_toml_and_as_json(tmp_path: Path) -> None:
    """Environment over file over default, a secret masked in both."""
    path = tmp_path / "triage.toml"
    path.write_text('[kafka]\nbootstrap = "file:1"\nsasl_password = "s3cr3t"\n[log]\nlevel = "ERROR"\n')
    arguments = ("config", "--config", str(path))
    as_toml = triage(*arguments, TRIAGE_KAFKA__BOOTSTRAP="env:1")
    as_json = triage(*arguments, "--json", TRIAGE_KAFKA__BOOTSTRAP="env:1")
    assert tomllib.loads(as_toml.stdout) == json.loads(as_json.stdout)
    kafka = json.loads(as_json.stdout)["kafka"]
    assert (kafka["bootstrap"], kafka["sasl_password"]) == ("env:1", "*" * 10)
    assert "s3cr3t" not in as_toml.stdout + as_json.stdout


@pytest.mark.parametrize("command", ["producer", "worker", "worklist", "config"])
def test_a_wrong_setting_stops_the_start_with_one_sentence_and_2(command: str) -> None:
    """No traceback, no service: one line that names the variable."""
    told = triage(command, TRIAGE_KAFKA__PARTITIONS="none")
    assert told.returncode == 2
    assert told.stdout == ""
    assert told.stderr.splitlines() == [
        "triage: kafka.partitions (TRIAGE_KAFKA__PARTITIONS) must be a whole number, and text was given."
    ]


def test_a_mistyped_command_is_refused_with_2() -> None:
    """As every command line does."""
    assert triage("produce").returncode == 2


@pytest.mark.parametrize(("command", "module"), [("producer", "pynetdicom"), ("worker", "redis"), ("send", "pydicom")])
def test_a_missing_extra_is_a_sentence_that_says_what_to_install(command: str, module: str) -> None:
    """A wheel without the extra of a service says so, instead of a traceback."""
    code = f"import sys; sys.modules[{module!r}] = None; from launch.cli import main; main(sys.argv[1:])"
    arguments = ["x", "--to", "h:1"] if command == "send" else []
    told = subprocess.run(
        [sys.executable, "-c", code, command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    extra = "producer" if command == "send" else command
    assert told.returncode == 1, told.stderr
    assert f"triage {command} needs the package {module}" in told.stderr
    assert f"pip install 'lesion-triage[{extra}]'" in told.stderr
    assert "Traceback" not in told.stderr


def test_training_outside_a_checkout_is_a_sentence(tmp_path: Path) -> None:
    """The wheel holds no training; the command says so."""
    code = "import sys; sys.modules['training'] = None; from launch.cli import main; main(['train'])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert told.returncode == 1
    assert "triage train is only in a checkout of the project" in told.stderr
