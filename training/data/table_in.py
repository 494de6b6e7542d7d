"""CSV tables of labels. What is wrong with one is told with its name, and with the line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from training.data.study import BadStudy, Fault

YES = frozenset({"1", "1.0", "true", "yes", "y"})
NO = frozenset({"0", "0.0", "false", "no", "n"})


def read_table(file: Path, needed: Iterable[str]) -> list[dict[str, str]]:
    """All rows. Column names and values are stripped; names are lower case; a byte order mark is no part of them.

    Raises:
        BadStudy: the file or a needed column is missing, it is no text, or it has no row.
    """
    rows = list(iterate_table(file, needed))
    if not rows:
        raise BadStudy(file, "has no row", Fault.EMPTY)
    return rows


def iterate_table(file: Path, needed: Iterable[str]) -> Iterator[dict[str, str]]:
    """The rows one by one: RSNA's table has four and a half million."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text)
            names = [name.strip().lower() for name in next(reader, [])]
            _check_names(file, names, needed)
            for cells in reader:
                if cells:
                    yield dict(zip(names, (cell.strip() for cell in cells), strict=False))
    except OSError as problem:
        raise BadStudy(file, f"cannot be opened ({problem.strerror})", Fault.LABEL_MISSING) from problem
    except (UnicodeDecodeError, csv.Error) as problem:
        raise BadStudy(file, f"is no CSV text ({problem})") from problem


def _check_names(file: Path, names: list[str], needed: Iterable[str]) -> None:
    missing = [name for name in needed if name not in names]
    if missing:
        raise BadStudy(
            file, f"has no column {', '.join(missing)} (it has {', '.join(names) or 'none'})", Fault.LABEL_MISSING
        )


def yes_or_no(file: Path, row: str, text: str | None) -> bool | None:
    """The answer in a cell; None where it is empty.

    Raises:
        BadStudy: it is neither; `row` tells which.
    """
    told = (text or "").strip().lower()
    if told in YES or told in NO:
        return told in YES
    if told:
        raise BadStudy(file, f"{row}: {text!r} is neither 0 nor 1", Fault.LABEL_MISSING)
    return None
