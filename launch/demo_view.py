"""What the demo shows: live tables on a terminal, plain lines elsewhere, the final worklist in both."""

from collections.abc import Callable
from typing import Any, Protocol, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from contracts.findings import volume_words
from contracts.worklist import NOTICE
from launch.demo_board import FLAGGED, Board, Progress

_STYLES = {"flagged": "bold red", "not_flagged": "green", "not_analysed": "yellow", "receiving": "dim"}
_REFRESH_PER_S = 4
_WIDTH = 140  # characters of a line in a log
_ROWS = 20  # of each table on a terminal; the final list is whole


class View(Protocol):
    """Where the demo shows what it knows."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, board: Board, now_s: float) -> None:
        """The board has changed, or time has passed."""


def console_on(file: TextIO) -> Console:
    """A terminal's own width; elsewhere wide enough that nothing is cut."""
    console = Console(file=file)
    return console if console.is_terminal else Console(file=file, width=_WIDTH)


def view_for(console: Console) -> View:
    """Live tables where somebody watches, plain lines where a file or a build does."""
    return _LiveView(console) if console.is_terminal else _PlainView(console.print)


class _LiveView:
    """Two tables that are drawn over and over."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=_REFRESH_PER_S, transient=True)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, board: Board, now_s: float) -> None:
        """Studies in the order they were sent, and below them in the order they will be read."""
        del now_s
        self._live.update(Group(studies_table(board, _ROWS), worklist_table(board, _ROWS), Text(NOTICE, style="dim")))


class _PlainView:
    """One line for every change that matters."""

    def __init__(self, write: Callable[..., None]) -> None:
        self._write = write
        self._told: dict[str, str] = {}
        self._began_s: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to give back."""

    def show(self, board: Board, now_s: float) -> None:
        """Tells each study whose state is another than when it was last told."""
        self._began_s = now_s if self._began_s is None else self._began_s
        for uid, study in board.studies.items():
            line = line_of(study, board)
            if line and self._told.get(uid) != _milestone(study):
                self._told[uid] = _milestone(study)
                self._write(f"{now_s - self._began_s:6.1f} s  {line}", highlight=False, markup=False, soft_wrap=True)


def _milestone(study: Progress) -> str:
    return f"{study.state} {study.ended}"


def line_of(study: Progress, board: Board) -> str:
    """``bleeding head: flagged, 12 sent, 12 settled, first flag at image 9 of 26, …, place 1 of 6``; "" if unknown."""
    if not study.state:
        return ""
    settled = study.item.get("images_settled", 0)
    parts = [f"{study.label}: {'ended as ' if study.ended else ''}{said(study)}", f"{len(study.stored)} sent"]
    parts += [f"{settled} settled", f"first flag at {flag_of(study)}" if flag_of(study) else ""]
    if study.study_instance_uid in board.order:
        parts.append(f"place {board.order.index(study.study_instance_uid) + 1} of {len(board.order)}")
    return ", ".join(part for part in parts if part)


def said(study: Progress) -> str:
    """``flagged (provisional)``, ``not analysed (modality out of scope)``."""
    item = study.item
    why = item.get("reason") or ("provisional" if study.state == FLAGGED and item.get("provisional") else "")
    return study.state.replace("_", " ") + (f" ({str(why).replace('_', ' ')})" if why else "")


def flag_of(study: Progress) -> str:
    """``image 12 of 26, 6.1 s``: how many the peer had, and when, counted from the first; "" where there was none."""
    if study.flag_s is None or study.first_s is None:
        return ""
    return f"image {study.flag_images} of {study.images}, {study.flag_s - study.first_s:.1f} s"


def studies_table(board: Board, rows: int) -> Table:
    """What was sent, and what came of it."""
    table = Table(title="Sent by the scanners", title_justify="left", expand=False)
    for heading, narrow in (
        ("sent", True),
        ("images", True),
        ("settled", True),
        ("state", False),
        ("first flag", False),
    ):
        table.add_column(heading, no_wrap=narrow)
    for study in list(board.studies.values())[-rows:]:
        images = f"{len(study.stored)}/{study.images}" + (f" ({len(study.refused)} refused)" if study.refused else "")
        state = Text(said(study), style=_STYLES.get(study.state, ""))
        table.add_row(study.label, images, str(study.item.get("images_settled", 0)), state, flag_of(study))
    return table


def worklist_table(board: Board, rows: int | None = None) -> Table:
    """The reading order."""
    marked = "" if board.status in ("", "ok") else f" ({board.status})"
    table = Table(title=f"The worklist, read from the top{marked}", title_justify="left", expand=False)
    for heading in ("", "study", "urgency"):
        table.add_column(heading, no_wrap=True)
    for heading in ("state", "findings"):
        table.add_column(heading)
    for place, uid in enumerate(board.order[:rows], 1):
        study = board.studies.get(uid)
        if study is not None:
            table.add_row(str(place), *_row(study))
    return table


def _row(study: Progress) -> tuple[str | Text, ...]:
    item = study.item
    first, *others = [_finding(finding) for finding in item.get("findings", ())] or [""]
    findings = first + (f" and {len(others)} more" if others else "")
    style = _STYLES.get(study.state, "")
    return (
        study.label,
        str(item.get("urgency", "")),
        Text(said(study), style=style),
        findings,
    )


def _finding(finding: dict[str, Any]) -> str:
    return (
        f"{str(finding['name']).replace('_', ' ')} {finding['probability']:.2f} ({volume_words(finding['volume_ml'])})"
    )
