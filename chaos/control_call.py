"""One word in a file that another process reads again and again: moods of the model, troubles of the disk."""

from enum import StrEnum
from pathlib import Path


class Control:
    """The file is there from the start and replaced whole, so that a reader never finds half a word."""

    def __init__(self, file: Path, word: StrEnum) -> None:
        self.file = file.resolve()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.say(word)

    def say(self, word: StrEnum) -> None:
        """What the other process finds from now on."""
        written = self.file.with_suffix(".new")
        written.write_text(word, encoding="ascii")
        written.replace(self.file)
