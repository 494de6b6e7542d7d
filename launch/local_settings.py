"""What the embedded stack sets for its services, over and under what the person sets.

Three layers: the stack's own defaults, which the person may change; what the person says (environment, file,
``--set``); and what only the stack can know, such as the address of a broker it has just started.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from contracts.errors import SettingsError
from contracts.settings import Settings
from launch.settings_in import CONFIG, PREFIX, load, names, variable_of
from launch.stack.service import PACKAGE_ROOT

EMBEDDED_PARTITIONS = 4
PORTS = (
    "producer.port",
    "producer.stow_port",
    "worklist.port",
    "probes.producer_port",
    "probes.worker_port",
    "probes.worklist_port",
)
# Only the stack knows these; saying them would mean another broker, queue or inference server than the one it starts.
DECIDED = ("kafka.bootstrap", "kafka.memory_only", "kafka.security_protocol", "redis.url", "triton.url")


class Broker(StrEnum):
    """Which broker the stack starts."""

    TANSU = "tansu"
    KAFKA = "kafka"


@dataclass(frozen=True, slots=True)
class Given:
    """What the person says: variables, and the settings they amount to."""

    variables: Mapping[str, str]
    settings: Settings

    def says(self, dotted: str) -> bool:
        """Whether the person set it, wherever."""
        section, _, name = dotted.rpartition(".")
        holder = getattr(self.settings, section) if section else self.settings
        return name in holder.model_fields_set


def given(environ: Mapping[str, str], assignments: Iterable[str] = (), config: Path | None = None) -> Given:
    """The person's settings: ``assignments`` over environment over file. Raises SettingsError with a sentence."""
    variables = {name: value for name, value in environ.items() if name.upper().startswith(PREFIX)}
    variables |= dict(assigned(assignment) for assignment in assignments)
    file = config or variables.get(CONFIG)
    if file:
        variables[CONFIG] = str(Path(file).absolute())
    return Given(variables, load(environ=variables))


def assigned(assignment: str) -> tuple[str, str]:
    """``section.name=value`` → variable and value. Raises SettingsError."""
    dotted, equals, value = assignment.partition("=")
    if not equals:
        raise SettingsError(f"--set takes section.name=value, and {dotted} has no value.")
    if dotted in DECIDED:
        raise SettingsError(f"{dotted} cannot be set here: the stack starts its own and knows its address.")
    if not any(dotted == name or dotted.startswith(f"{name}.") for name in names()):
        raise SettingsError(f"There is no setting {dotted}: triage config prints those there are.")
    return variable_of(dotted), value


def defaults(broker: Broker, folder: Path) -> dict[str, str]:
    """What the stack changes for one machine, by dotted name."""
    return {
        "kafka.partitions": str(EMBEDDED_PARTITIONS),
        "kafka.replication": "1",
        "kafka.min_insync": "1",
        # Tansu moves every partition at each rebalance whatever the assignor asks for.
        "kafka.cooperative": str(broker is not Broker.TANSU).lower(),
        "payload.url": (folder / "payload").as_uri(),
    }


def decided(broker: Broker, bootstrap: str, redis_url: str, triton_url: str) -> dict[str, str]:
    """What only the stack knows, by dotted name."""
    return {
        "kafka.bootstrap": bootstrap,
        "kafka.memory_only": str(broker is Broker.TANSU).lower(),
        "kafka.security_protocol": "PLAINTEXT",
        "redis.url": redis_url,
        "triton.url": triton_url,
    }


def combined(said: Given, under: Mapping[str, str], over: Mapping[str, str]) -> dict[str, str]:
    """The variables of a service: ``under`` where the person is silent, ``over`` in any case."""
    silent = {name: value for name, value in under.items() if not said.says(name)}
    return {
        **{variable_of(name): value for name, value in silent.items()},
        **said.variables,
        **{variable_of(name): value for name, value in over.items()},
    }


def model_repository(said: Given) -> Path:
    """The folder of the setting; where it is not set and not here, the one beside the packages (a clone)."""
    folder = Path(said.settings.model_repository).absolute()
    beside = PACKAGE_ROOT / "triton_models"
    return beside if not said.says("model_repository") and not folder.is_dir() else folder
