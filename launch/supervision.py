"""Watching the parts of the stack: one that ends is started again, later each time; some ends end everything."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from launch.stack.part import Part, StartFailed

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
STEADY_S = 60.0  # a part that ran so long has earned a fresh start of its delays

Say = Callable[[str], None]


def delay_s(failures: int) -> float:
    """How long to wait before the next start, after that many ends in a row (≥ 1)."""
    return min(FIRST_DELAY_S * 2.0 ** (failures - 1), LONGEST_DELAY_S)


@dataclass
class Watched:
    """One part and where it stands: running, starting (launched, not yet answering) or down until ``due``."""

    part: Part
    vital: bool = False  # its end ends the stack
    failures: int = 0
    since: float = 0.0  # when it was last started
    due: float | None = None  # when it is to be started again, while it is down
    starting: bool = False

    def look(self, now: float, say: Say) -> None:
        """One look at the part. Does what is due and says what happened."""
        if self.due is not None:
            self._start_when_due(now, say)
        elif not self.part.alive():
            self._ended(now, say)
        elif self.starting:
            self._answering(now, say)

    @property
    def lost(self) -> bool:
        """Whether it has ended and its end is the end of the stack."""
        return self.vital and not self.part.alive()

    def _ended(self, now: float, say: Say) -> None:
        self.failures = 1 if now - self.since > STEADY_S else self.failures + 1
        wait_s = delay_s(self.failures)
        self.due, self.starting = now + wait_s, False
        say(f"{self.part.name} ended ({self.part.ending}); it is started again in {wait_s:g} s.")

    def _start_when_due(self, now: float, say: Say) -> None:
        if self.due is None or now < self.due:
            return
        self.due, self.since, self.starting = None, now, True
        try:
            self.part.launch()
        except StartFailed as error:
            say(str(error))
            self._ended(now, say)

    def _answering(self, now: float, say: Say) -> None:
        if self.part.answers():
            self.starting = False
            say(f"{self.part.name} answers again (process {self.part.pid}).")
        elif now - self.since > self.part.start_limit_s:
            say(f"{self.part.name} did not answer within {self.part.start_limit_s:g} s; it is killed.")
            self.part.kill()


def look_at_all(watched: Sequence[Watched], now: float, say: Say) -> Watched | None:
    """One look at every part; the vital one that is lost, or None."""
    lost = next((one for one in watched if one.lost), None)
    if lost is None:
        for one in watched:
            one.look(now, say)
    return lost
