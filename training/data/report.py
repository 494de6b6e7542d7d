"""A check's result for people: Markdown for a file, tables for a terminal. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from training.data.checks import Figures, Finding, Report, Severity

SHOWN = 200  # findings in the terminal; the files hold all
COLOUR = {Severity.ERROR: "bold red", Severity.WARNING: "yellow"}


def verdict(report: Report) -> str:
    """One sentence."""
    counts = Counter(finding.severity for finding in report.findings)
    told = f"{counts[Severity.ERROR]} errors, {counts[Severity.WARNING]} warnings"
    return f"{'Fit for training' if report.passed else 'Not fit for training'}: {told}."


def figure_rows(figures: Figures) -> list[tuple[str, str]]:
    """What was read, as name and value."""
    return [
        ("studies", f"{figures.studies} read, {figures.unreadable} not readable"),
        ("patients", str(figures.patients)),
        ("slices", str(figures.slices)),
        ("with masks", str(figures.masks)),
        ("between slices, mm", _counted(figures.slice_mm)),
        ("pixels, mm", f"{figures.pixel_mm[0]} to {figures.pixel_mm[1]}" if figures.pixel_mm else "—"),
        ("matrix", _counted(figures.matrix)),
        ("HU, 1st to 99th percentile", f"{figures.hu[0]:.0f} to {figures.hu[1]:.0f}" if figures.hu else "—"),
        *((f"label {name}", _counted(counts)) for name, counts in figures.labels.items()),
    ]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items()) or "—"


def finding_rows(findings: Sequence[Finding]) -> list[tuple[str, str, str, str]]:
    """Errors first."""
    inorder = sorted(
        findings, key=lambda finding: (finding.severity is not Severity.ERROR, finding.fault, finding.file)
    )
    return [(finding.severity.value, finding.fault.value, finding.file, finding.sentence) for finding in inorder]


def markdown(report: Report) -> str:
    """The whole report."""
    return "\n".join(
        [
            f"# Data check: {report.source}",
            "",
            verdict(report),
            "",
            *_lines(("what", "found"), figure_rows(report.figures)),
            "",
            "## Split by patient",
            "",
            *_split(report),
            "",
            "## Findings",
            "",
            *(_lines(("severity", "fault", "file", "what"), finding_rows(report.findings)) or ["None."]),
            "",
        ]
    )


def _split(report: Report) -> list[str]:
    if not report.split:
        return ["None."]
    return _lines(tuple(report.split[0]), [tuple(map(str, row.values())) for row in report.split])


def _lines(names: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    told = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [f"| {' | '.join(names)} |", "|" + "---|" * len(names), *told] if told else []


def terminal(report: Report) -> RenderableType:
    """Tables for rich."""
    rows = finding_rows(report.findings)
    parts: list[RenderableType] = [_table("What was read", ("what", "found"), figure_rows(report.figures))]
    if report.split:
        split = [tuple(map(str, row.values())) for row in report.split]
        parts.append(_table("Split by patient", tuple(report.split[0]), split))
    if rows:
        parts.append(_table("Findings", ("severity", "fault", "file", "what"), rows[:SHOWN]))
    if len(rows) > SHOWN:
        parts.append(Text(f"… and {len(rows) - SHOWN} more: see the report's files"))
    return Group(*parts, Text(verdict(report), style="green" if report.passed else COLOUR[Severity.ERROR]))


def _table(title: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", show_lines=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        style = COLOUR.get(Severity(row[0])) if row[0] in set(Severity) else None
        table.add_row(*map(Text, row), style=style)
    return table
