"""``triage send``: files and folders to a DICOM node, as a scanner would."""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from contracts.errors import SettingsError, TriageError
from launch.scanner_in import Image, IsDirectoryRecord, NotSendable, Unreadable, files_under, image_in
from launch.scanner_out import Outcome, Scanner, Sent, send_images
from launch.wording import counted

AeTitle = Annotated[str, typer.Option(help="AE title, at most 16 characters.")]


def register(app: typer.Typer) -> None:
    """Adds ``triage send``."""
    app.command(name="send")(send)


def send(  # noqa: PLR0913 — a command's options
    paths: Annotated[list[Path], typer.Argument(help="DICOM files and folders; folders with all below them.")],
    *,
    to: Annotated[str, typer.Option(help="HOST:PORT of the DICOM node.")],
    calling_ae: AeTitle = "SCANNER",
    called_ae: AeTitle = "TRIAGE",
    rate: Annotated[float | None, typer.Option(min=0.01, help="Images a second; as fast as they go without.")] = None,
    associations: Annotated[int, typer.Option(min=1, max=32, help="Associations at once.")] = 1,
    stat: Annotated[bool, typer.Option("--stat", help="DIMSE priority high.")] = False,
    retry_s: Annotated[float, typer.Option(min=0, help="How long to insist on one image, in seconds.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with every file's answer.")] = False,
) -> None:
    """Send DICOM files over real associations, each in its own transfer syntax; exit code 1 if any was not stored."""
    host, port = host_and_port(to)
    for title in (calling_ae, called_ae):
        check_ae_title(title)
    scanner = Scanner(host, port, calling_ae, called_ae, rate, associations, stat, retry_s)
    found = found_in(paths)
    answers = _with_progress(found.images, scanner)
    summary = summary_of(answers, found.not_sendable, found.left_out)
    print(json.dumps(summary) if as_json else sentence_of(summary))
    raise typer.Exit(int(not all_well(summary)))


def host_and_port(text: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port``. Raises SettingsError."""
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) <= 65535):  # noqa: PLR2004 — the highest port
        raise SettingsError("--to takes HOST:PORT, for example 127.0.0.1:11112.")
    return host.strip("[]"), int(port)


def check_ae_title(title: str) -> None:
    """PS3.5 6.2: 1 to 16 characters of the default repertoire, no backslash. Raises SettingsError."""
    if not (0 < len(title.strip()) <= 16 and title.isascii() and title.isprintable() and "\\" not in title):  # noqa: PLR2004 — VR AE
        raise SettingsError("An AE title has 1 to 16 printable ASCII characters without a backslash.")


@dataclass(frozen=True, slots=True)
class Found:
    """What can be sent; what should have been and cannot, with the reason; what lay beside it in a folder."""

    images: list[Image] = field(default_factory=list)
    not_sendable: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def found_in(paths: Sequence[Path]) -> Found:
    """A named path that cannot be sent is a fault, and so is one that cannot be read; any other bystander is not.

    Raises TriageError where there is nothing at all.
    """
    found = Found()
    for path, named in files_under(paths):
        try:
            found.images.append(image_in(path))
        except IsDirectoryRecord:
            continue
        except NotSendable as problem:
            fault = named or isinstance(problem, Unreadable)
            (found.not_sendable if fault else found.left_out)[str(path)] = str(problem)
    if not found.images and not found.not_sendable:
        raise TriageError("there is no DICOM file to send there.")
    return found


def _with_progress(images: Sequence[Image], scanner: Scanner) -> list[Sent]:
    console = Console(file=sys.stderr)
    columns = (TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("sending", total=len(images))

        def told(answer: Sent) -> None:
            console.print(line_of(answer), style=_STYLES[answer.outcome], highlight=False, soft_wrap=True, markup=False)
            progress.advance(task)

        return send_images(images, scanner, told)


_STYLES: dict[Outcome, str] = {
    Outcome.STORED: "dim",
    Outcome.WARNING: "yellow",
    Outcome.REFUSED: "bold red",
    Outcome.FAILED: "bold red",
}


def line_of(answer: Sent) -> str:
    """``refused  0xA900  path  (2 attempts)``."""
    status = "-" if answer.status is None else f"0x{answer.status:04X}"
    tries = f"  ({answer.attempts} attempts)" if answer.attempts > 1 else ""
    detail = f"  {answer.detail}" if answer.detail else ""
    return f"{answer.outcome:<8} {status:<7} {answer.image.name}{detail}{tries}"


def summary_of(
    answers: Sequence[Sent], not_sendable: Mapping[str, str], left_out: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """What ``--json`` prints."""
    counts = Counter(answer.outcome for answer in answers)
    began = min((answer.began_s for answer in answers), default=0.0)
    ended = max((answer.ended_s for answer in answers), default=0.0)
    return {
        "images": len(answers),
        **{outcome.value: counts[outcome] for outcome in Outcome},
        "not_sendable": dict(not_sendable),
        "left_out": dict(left_out),
        "seconds": round(ended - began, 3),
        "files": [_file(answer) for answer in answers],
    }


def _file(answer: Sent) -> dict[str, Any]:
    return {
        "path": answer.image.name,
        "sop_instance_uid": answer.image.sop_instance_uid,
        "outcome": answer.outcome,
        "status": None if answer.status is None else f"0x{answer.status:04X}",
        "attempts": answer.attempts,
        "detail": answer.detail,
    }


def all_well(summary: dict[str, Any]) -> bool:
    """Whether everything that was named is at the peer."""
    return not (summary["refused"] or summary["failed"] or summary["not_sendable"])


def sentence_of(summary: dict[str, Any]) -> str:
    """The last line for people."""
    stored = summary["stored"] + summary["warning"]
    troubles = [f"{summary[name]} {name}" for name in ("refused", "failed") if summary[name]]
    troubles += [f"{path}: {why}" for path, why in summary["not_sendable"].items()]
    if summary["left_out"]:
        many = len(summary["left_out"])
        troubles.append(f"{counted(many, 'file')} left out that {'are' if many > 1 else 'is'} no DICOM Part 10 file")
    images = counted(summary["images"], "image")
    return f"{stored} of {images} stored in {summary['seconds']} s" + "".join(f"; {t}" for t in troubles)
