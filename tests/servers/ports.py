"""Free ports for servers that a test starts itself."""

from launch.stack.ports import HeldPort, hold_port

_held: list[HeldPort] = []  # for the session's length: no other stack or test on this machine chooses them


def free_port() -> int:
    """A loopback port nobody listens on and no other test will be given."""
    _held.append(hold_port())
    return _held[-1].number
