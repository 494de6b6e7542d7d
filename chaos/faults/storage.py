"""The disk below the claim check. The preview store comes with the worklist's page and is best effort."""

from random import Random

from chaos.faults.trouble import Begin, Span, Trouble, during
from chaos.scenario import Disk, Fault, Load, Rig

HELD = Span(3.0, 8.0)
LOAD = Load(large=0.4)  # only images too large for a record touch the disk


def disk(trouble: Disk) -> Begin:
    """The claim-check store of both producers does that."""

    def begin(rig: Rig, _: Random) -> Trouble:
        rig.disk(trouble)
        return Trouble(f"claim-check store: {trouble}", lambda: rig.disk(Disk.SOUND))

    return begin


def faults(hold: float) -> tuple[Fault, ...]:
    """The rows."""
    held = HELD.scaled(hold)
    return (
        Fault("disk_full", "no Success for a payload that is not there", during(disk(Disk.FULL), held), LOAD),
        Fault("sync_fails", "no Success without fsync", during(disk(Disk.SYNC_FAILS), held), LOAD),
    )
