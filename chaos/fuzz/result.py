"""What a run came to: one line a target, the scanner beside them, the sums. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

GROWTH_MIB = 64.0  # of a process under test, after it has warmed up


@dataclass(frozen=True, slots=True)
class Tried:
    """One target. ``growth_mib``: of the process that ran it. ``files``: inputs that broke it."""

    name: str
    inputs: int = 0
    crashes: int = 0
    hangs: int = 0
    growth_mib: float = 0.0
    seconds: float = 0.0
    slowest_s: float = 0.0
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether nothing was found."""
        return not (self.crashes or self.hangs or self.growth_mib > GROWTH_MIB)

    def __add__(self, other: "Tried") -> "Tried":
        """Both runs of one target; the larger growth and the slower input count."""
        return replace(
            self,
            inputs=self.inputs + other.inputs,
            crashes=self.crashes + other.crashes,
            hangs=self.hangs + other.hangs,
            growth_mib=max(self.growth_mib, other.growth_mib),
            seconds=round(self.seconds + other.seconds, 1),
            slowest_s=max(self.slowest_s, other.slowest_s),
            files=tuple(dict.fromkeys(self.files + other.files)),
            notes=tuple(dict.fromkeys(self.notes + other.notes)),
        )


@dataclass(frozen=True, slots=True)
class Scanned:
    """The well-behaved scanner: images sent, answered with Success, settled exactly once."""

    sent: int = 0
    stored: int = 0
    settled: int = 0

    @property
    def good(self) -> bool:
        """Whether every image that was sent was stored and settled."""
        return self.sent == self.stored == self.settled

    def __add__(self, other: "Scanned") -> "Scanned":
        """Both."""
        return Scanned(self.sent + other.sent, self.stored + other.stored, self.settled + other.settled)


@dataclass(frozen=True, slots=True)
class Result:
    """Everything. Results of several runs add up."""

    targets: Mapping[str, Tried] = field(default_factory=dict)
    scanner: Scanned = Scanned()
    seeds: tuple[int, ...] = ()

    @property
    def good(self) -> bool:
        """Whether nothing was found and the scanner was served."""
        return self.scanner.good and all(tried.good for tried in self.targets.values())

    @property
    def inputs(self) -> int:
        """Of all targets."""
        return sum(tried.inputs for tried in self.targets.values())

    def __add__(self, other: "Result") -> "Result":
        """Both, target by target."""
        names = dict.fromkeys((*self.targets, *other.targets))
        targets = {name: self.targets.get(name, Tried(name)) + other.targets.get(name, Tried(name)) for name in names}
        return Result(targets, self.scanner + other.scanner, tuple(dict.fromkeys(self.seeds + other.seeds)))

    def told(self) -> dict[str, Any]:
        """As JSON."""
        tried = list(self.targets.values())
        return {
            "targets": [asdict(one) for one in tried],
            "scanner": asdict(self.scanner),
            "totals": {
                "inputs": self.inputs,
                "crashes": sum(one.crashes for one in tried),
                "hangs": sum(one.hangs for one in tried),
                "largest_growth_mib": max((one.growth_mib for one in tried), default=0.0),
                "seconds": round(sum(one.seconds for one in tried), 1),
            },
            "seeds": list(self.seeds),
        }


def result_of(told: Mapping[str, Any]) -> Result:
    """From its JSON."""
    targets = {one["name"]: tried_of(one) for one in told["targets"]}
    return Result(targets, Scanned(**told["scanner"]), tuple(told.get("seeds", ())))


def tried_of(told: Mapping[str, Any]) -> Tried:
    """One target's line from its JSON."""
    lists = {name: tuple(told.get(name, ())) for name in ("files", "notes")}
    return Tried(**{**told, **lists})


def shared(inputs: int, shares: Mapping[str, int]) -> dict[str, int]:
    """So many inputs over the targets by their shares; the sum is exact."""
    if not shares:
        return {}
    whole = sum(shares.values())
    given = {name: inputs * share // whole for name, share in shares.items()}
    for name in sorted(shares, key=lambda one: -shares[one])[: inputs - sum(given.values())]:
        given[name] += 1
    return given
