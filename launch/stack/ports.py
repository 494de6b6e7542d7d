"""Free loopback ports that stay ours from the choice until we let go.

A server binds its port itself, so a port cannot be kept open for it. Three measures close the gap between choosing and
binding: the ports lie below the kernel's ephemeral range, so no outgoing connection is given one; a name in the
abstract socket namespace stands for each port and can be bound once on a machine, so no second stack chooses it; and a
trial bind shows that no stranger listens there. The name dies with the process that holds it, however it ends.
"""

import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
LOWEST_PORT = 20_000  # above the ports that well-known servers take
EPHEMERAL_DEFAULT = 32_768  # Linux's default start of the ephemeral range
_EPHEMERAL_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")


@dataclass(frozen=True, slots=True)
class HeldPort:
    """A loopback port that no other stack will choose while this is held."""

    number: int
    _claim: socket.socket

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{LOOPBACK}:{self.number}"

    def release(self) -> None:
        """Lets others have it."""
        self._claim.close()


def hold_port() -> HeldPort:
    """A port nobody listens on and no other stack holds. Raises OSError when there is none."""
    for number in _candidates():
        claim = _claim(number)
        if claim is None:
            continue
        if _nobody_listens(number):
            return HeldPort(number, claim)
        claim.close()
    raise OSError("no free loopback port is left below the ephemeral range")


def _candidates() -> Iterator[int]:
    numbers = list(range(LOWEST_PORT, _ephemeral_start()))
    random.SystemRandom().shuffle(numbers)
    yield from numbers


def _ephemeral_start() -> int:
    try:
        start = int(_EPHEMERAL_FILE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return EPHEMERAL_DEFAULT
    return start if start > LOWEST_PORT + 1000 else EPHEMERAL_DEFAULT


def _claim(number: int) -> socket.socket | None:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0lesion-triage-port-{number}")
    except OSError:
        claim.close()
        return None
    return claim


def _nobody_listens(number: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free for a server
        try:
            trial.bind((LOOPBACK, number))
        except OSError:
            return False
    return True
