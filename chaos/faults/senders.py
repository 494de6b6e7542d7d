"""What scanners do to us: the load itself is the fault, and a death beside it makes it harder."""

from random import Random

from chaos.faults.processes import killed, one_producer, one_worker
from chaos.faults.trouble import BLINK, Begin, Choose, Span, Trouble, during
from chaos.scenario import Fault, Load, Mood, Order, Rig

PAUSE = Span(0.5, 2.0)
SLOWED = Span(20.0, 20.0)


def sent_as_it_is(told: str, *victims: Choose) -> Begin:
    """Half the time nothing more happens; else one of the victims dies meanwhile."""

    def begin(rig: Rig, dice: Random) -> Trouble:
        if dice.choice((True, False)):
            return Trouble(told, lambda: None)
        death = killed(dice.choice(victims))(rig, dice)
        return Trouble(f"{told}; {death.told}", death.end)

    return begin


def slowed(rig: Rig, _: Random) -> Trouble:
    """The model takes a quarter of a second an image."""
    rig.model(Mood.SLOW)
    return Trouble("twice the rate that can be scored", lambda: rig.model(Mood.SOUND))


def _sent(told: str) -> Begin:
    return sent_as_it_is(told, one_worker, one_producer)


def faults(hold: float) -> tuple[Fault, ...]:
    """The rows; ``hold`` scales the overload."""
    return (
        Fault(
            "poison_study",
            "an image that no decoder reads is told, and holds up nobody",
            during(_sent("an image that no decoder reads"), BLINK),
            Load(poison=4),
        ),
        Fault(
            "five_times",
            "an image is settled once, however often it comes",
            during(_sent("every image five times"), PAUSE),
            Load(studies=10, copies=5, rate=80.0),
        ),
        Fault(
            "out_of_order",
            "slices shuffled, and some after the study has closed, up to minutes after: it opens again",
            during(_sent("shuffled and late"), PAUSE),
            Load(order=Order.LATE),
        ),
        Fault(
            "same_uid_other_bytes",
            "both are kept, and the study says so",
            during(_sent("one UID, two pictures"), PAUSE),
            Load(other_bytes=4),
        ),
        Fault(
            "overload",
            "more than can be scored: it waits, and nothing is lost",
            during(slowed, SLOWED.scaled(hold)),
            Load(studies=30, associations=8, rate=60.0),
        ),
    )
