"""The log is away, or cannot promise what it is asked to."""

from collections.abc import Sequence
from random import Random

from chaos.faults.processes import BETWEEN, frozen, killed
from chaos.faults.trouble import ABSENCE, BLINK, Span, during, repeated
from chaos.scenario import Fault, Load, Rig
from launch.stack.part import Part

OUTAGE = Span(60.0, 60.0)  # the minute
MINORITY = Span(8.0, 15.0)  # beyond the brokers' own session timeout of 4 s: the in-sync set has shrunk


def one_broker(rig: Rig, dice: Random) -> Sequence[Part]:
    """Any."""
    return [dice.choice(rig.brokers)]


def the_leader(rig: Rig, _: Random) -> Sequence[Part]:
    """Of most partitions of ``study.events``."""
    return [rig.leader()]


def two_brokers(rig: Rig, dice: Random) -> Sequence[Part]:
    """One is left: fewer than min.insync.replicas."""
    return dice.sample(rig.brokers, 2)


def all_brokers(rig: Rig, _: Random) -> Sequence[Part]:
    """None is left."""
    return rig.brokers


def faults(hold: float) -> tuple[Fault, ...]:
    """The rows; ``hold`` scales the minute without brokers."""
    return (
        Fault(
            "kill_broker",
            "acknowledged by two, one may die",
            repeated(during(killed(one_broker), BLINK, ABSENCE), (1, 2), BETWEEN),
        ),
        Fault(
            "kill_leader",
            "a leader elected in mid-batch has all that was acknowledged",
            during(killed(the_leader), ABSENCE),
        ),
        Fault(
            "brokers_down",
            "senders get 0xA700 and send again; nothing was acknowledged in vain",
            during(killed(all_brokers), OUTAGE.scaled(hold)),
            Load(studies=36),
        ),
        Fault(
            "insync_lost",
            "one replica is no promise: 0xA700 until a second is back",
            during(killed(two_brokers), MINORITY.scaled(max(hold, 0.6))),
        ),
        Fault(
            "leader_frozen", "a deposed leader that wakes up acknowledges nothing", during(frozen(the_leader), ABSENCE)
        ),
    )
