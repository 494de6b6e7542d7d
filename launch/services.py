"""The commands that start services: ``triage producer | worker | worklist``; and ``triage config``."""

import importlib
import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from contracts.hooks import Hooks
from contracts.ports import Service
from contracts.settings import Settings
from launch.commands import ConfigFile, sentence_for_missing
from launch.log_out import Bridge, JsonLog
from launch.observe_out import Observer
from launch.probes_out import Probes
from launch.run import run_services
from launch.settings_in import load
from launch.settings_print import as_toml, masked

_DRAIN_MARGIN_S = 10.0  # after the last image is settled: final commit, leaving the group, closing clients


def _drain_s(settings: Settings) -> float:
    """The longest that any service may need: scoring its own time; a door its last acknowledgement, then the log's."""
    return max(settings.scoring.drain_s, 2 * settings.kafka.ack_timeout_s) + _DRAIN_MARGIN_S


class Role(StrEnum):
    """The halves of the worker."""

    ALL = "all"
    SCORING = "scoring"
    FLAGGING = "flagging"


_HALVES: dict[Role, tuple[str, ...]] = {
    Role.ALL: ("scoring", "flagging"),
    Role.SCORING: ("scoring",),
    Role.FLAGGING: ("flagging",),
}


def producer(app: typer.Typer) -> None:
    """Adds ``triage producer``."""

    @app.command()
    def run(config: ConfigFile = None) -> None:
        """Receive images (C-STORE, STOW-RS, folder) and put each on the log before it is acknowledged."""
        settings = load(config)
        _serve("producer", ("producer",), settings, settings.probes.producer_port)


def worker(app: typer.Typer) -> None:
    """Adds ``triage worker``."""

    @app.command()
    def run(
        config: ConfigFile = None,
        role: Annotated[Role, typer.Option(help="Run both halves, or one.")] = Role.ALL,
    ) -> None:
        """Score every image on arrival, and keep the reading order by what is found."""
        settings = load(config)
        _serve("worker", _HALVES[role], settings, settings.probes.worker_port)


def worklist(app: typer.Typer) -> None:
    """Adds ``triage worklist``."""

    @app.command()
    def run(config: ConfigFile = None) -> None:
        """Serve the reading list: REST, live events, page."""
        settings = load(config)
        _serve("worklist", ("worklist",), settings, settings.probes.worklist_port)


def config(app: typer.Typer) -> None:
    """Adds ``triage config``."""

    @app.command()
    def show(
        config: ConfigFile = None,
        *,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of TOML.")] = False,
    ) -> None:
        """Print the effective settings (environment over file over defaults), secrets masked."""
        settings = load(config)
        print(json.dumps(masked(settings)) if as_json else as_toml(settings), end="\n" if as_json else "")


def _serve(command: str, rooms: Sequence[str], settings: Settings, probe_port: int) -> None:
    """Builds the rooms' services and runs them until a signal; leaves with the exit code."""
    log = JsonLog(command, settings.log.level)
    Bridge(log).install()
    observer = Observer(log)
    with sentence_for_missing(command, command):
        services = [service for room in rooms for service in _build(room, settings, observer)]
    probes = Probes(services, observer, settings.probes.host, probe_port, settings.limits)
    raise typer.Exit(run_services(services, probes, log, _drain_s(settings)))


def _build(room: str, settings: Settings, hooks: Hooks) -> list[Service]:
    services: list[Service] = importlib.import_module(f"launch.wiring.{room}").build(settings, hooks)
    return services
