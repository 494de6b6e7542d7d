"""The labelled data that a recipe names: checked, split by patient, read through the cache."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress as Bars

from training.data.cache_out import Cached
from training.data.checks import Finding, Report, Severity, check
from training.data.cli import SPLIT_SEED
from training.data.sources import open_source
from training.data.splits import parts_of
from training.data.study import Entry, Fault, Study
from training.fit.data import Unfit
from training.recipe import RealData

NEEDED = ("train", "validation")  # of a split; without `test` there is nothing to be judged on


@dataclass(frozen=True)
class Labelled:
    """Data that passed the check, in parts: the source's own split, else ours."""

    source: Cached
    parts: Mapping[str, Sequence[Entry]]

    def of(self, part: str) -> list[Entry]:
        """The part's studies that have a label."""
        return [entry for entry in self.parts.get(part, ()) if entry.any is not None]


@dataclass(frozen=True)
class HeldOut:
    """A source of the studies that were held out from the fit."""

    data: Labelled

    def entries(self) -> Sequence[Entry]:
        """Of the part `test`."""
        return self.data.of("test")

    def load(self, entry: Entry) -> Study:
        """With pixels."""
        return self.data.source.load(entry)


def read_labelled(data: RealData, beside: Path, cache: Path, console: Console) -> Labelled:
    """Every study is read once and looked at, as `triage data check` does.

    Raises:
        Unfit: the check found what `data.allow` does not let pass, or the split lacks a part.
        BadStudy: there are no data.
    """
    labels = beside / data.labels if data.labels else None
    source = Cached(open_source(data.layout, (beside / data.path).absolute(), labels), cache)
    cut: dict[str, Sequence[Entry]] = {}

    def parts(entries: Sequence[Entry]) -> Mapping[str, Sequence[Entry]]:
        cut.update(parts_of(entries, SPLIT_SEED))
        return cut

    with Bars(console=console) as bars:
        task = bars.add_task("real studies are checked", total=None)
        report = check(
            source,
            parts,
            name=f"{data.layout} {data.path}",
            allowed=frozenset(map(Fault, data.allow)),
            tell=lambda done, of: bars.update(task, completed=done, total=of),
        )
    _tell(report, data, console)
    if not set(NEEDED) <= set(cut):
        found = ", ".join(f"{name} ({len(entries)} studies)" for name, entries in cut.items())
        raise Unfit(f"data.path: {data.path}: its parts are {found}; {' and '.join(NEEDED)} are needed")
    return Labelled(source, cut)


def _tell(report: Report, data: RealData, console: Console) -> None:
    """One line a rule; those that are broken and not allowed end the run."""
    by_rule: dict[Fault, list[Finding]] = defaultdict(list)
    for finding in sorted(report.findings, key=lambda one: one.severity is not Severity.ERROR):
        by_rule[finding.fault].append(finding)
    lines = {fault: _line(found) for fault, found in by_rule.items()}
    errors = [fault for fault, found in by_rule.items() if found[0].severity is Severity.ERROR]
    if errors:
        told = "; ".join(lines[fault] for fault in errors)
        allow = ", ".join(f'"{fault}"' for fault in errors)
        raise Unfit(f"data.path: {data.path}: {told}. Mend it, or let it pass with data.allow = [{allow}]")
    for line in lines.values():
        console.print(line, style="yellow", highlight=False, soft_wrap=True)


def _line(found: Sequence[Finding]) -> str:
    more = f" (and {len(found) - 1} more: triage data check)" if len(found) > 1 else ""
    return f"{found[0].fault}: {found[0].file}: {found[0].sentence}{more}"
