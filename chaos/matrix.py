"""The fault matrix: every fault by name. ``matrix(hold)`` makes the same rows with longer or shorter outages."""

from collections.abc import Sequence

from chaos.faults import brokers, clocks, links, processes, records, senders, storage, triton, view
from chaos.scenario import Fault

FAMILIES = {
    "processes": processes.faults,
    "brokers": brokers.faults,
    "Redis": view.faults,
    "Triton": triton.faults,
    "links to the scanners": links.faults,
    "storage": storage.faults,
    "clocks": clocks.faults,
    "senders": senders.faults,
    "records": records.faults,
}


def by_family(hold: float = 1.0) -> dict[str, Sequence[Fault]]:
    """Family → its rows. ``hold`` scales outages; what must outlast a timeout stays that long."""
    return {family: rows(hold) for family, rows in FAMILIES.items()}


def matrix(hold: float = 1.0) -> dict[str, Fault]:
    """Name → fault."""
    return {fault.name: fault for rows in by_family(hold).values() for fault in rows}


FAULTS = matrix()


def table() -> str:
    """The matrix as docs/chaos.md shows it."""
    lines = ["| family | fault | what it tries |", "|---|---|---|"]
    for family, rows in by_family().items():
        lines += [f"| {family} | `{fault.name}` | {fault.why} |" for fault in rows]
    return "\n".join(lines)
