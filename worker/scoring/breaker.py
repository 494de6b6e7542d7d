"""A circuit breaker: after so many failures in a row the peer is left alone for a while, then probed once."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Breaker:
    """Closed → open after ``failures`` in a row → half open after ``open_s``: one probe decides.

    Times are seconds on any monotonic clock. Not thread-safe: the caller holds a lock.
    """

    failures: int
    open_s: float
    _in_a_row: int = 0
    _opened_at: float | None = None
    _probing_since: float | None = field(default=None)

    def allows(self, now: float) -> bool:
        """Whether a request may be sent; while half open, only one at a time, and that one is the probe."""
        if self._opened_at is None:
            return True
        if now - self._opened_at < self.open_s:
            return False
        if self._probing_since is not None and now - self._probing_since < self.open_s:
            return False
        self._probing_since = now  # a probe that never reports back frees its place after open_s
        return True

    def succeeded(self) -> None:
        """The peer answered: closed again."""
        self._in_a_row, self._opened_at, self._probing_since = 0, None, None

    def failed(self, now: float) -> None:
        """The peer failed us. A failed probe opens the breaker anew."""
        self._in_a_row += 1
        if self._opened_at is not None or self._in_a_row >= self.failures:
            self._opened_at, self._probing_since = now, None

    @property
    def is_open(self) -> bool:
        """Open or half open: the peer has not been seen well since it failed."""
        return self._opened_at is not None
