"""What lies in the log is poison: whoever reads it goes on, and so does every partition."""

from random import Random

from chaos.faults.processes import BETWEEN, killed, one_worker
from chaos.faults.trouble import BLINK, Trouble, during, repeated
from chaos.poison import poison
from chaos.scenario import Fault, Load, Rig


def poisoned(rig: Rig, dice: Random) -> Trouble:
    """Every partition; half the time its reader dies, so that another meets the same records again."""
    records = poison(rig.partitions, dice)
    rig.tell(records)
    told = f"{len(records)} poisonous records"
    if dice.choice((True, False)):
        return Trouble(told, lambda: None)
    death = killed(one_worker)(rig, dice)
    return Trouble(f"{told}; {death.told}", death.end)


def faults(hold: float) -> tuple[Fault, ...]:
    """The row; ``hold`` scales how long a reader stays away."""
    return (
        Fault(
            "poison_event",
            "a record that no one can read, or fold, or an image at 1e308 mm, stops no partition",
            repeated(during(poisoned, BLINK.scaled(hold)), (2, 3), BETWEEN),
            Load(far=4),
        ),
    )
