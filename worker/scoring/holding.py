"""Bytes of claim-check payloads in hand. The window counts records as they lie in the log, where these are empty."""

import threading


class Holding:
    """At most ``limit_bytes`` at once, or one payload of any size. Safe from many threads."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._lock = threading.Lock()

    def take(self, size_bytes: int) -> bool:
        """False, and nothing taken, where others hold too much."""
        with self._lock:
            fits = not self._held_bytes or self._held_bytes + size_bytes <= self._limit_bytes
            self._held_bytes += size_bytes if fits else 0
        return fits

    def give(self, size_bytes: int) -> None:
        """Hands back what was taken."""
        with self._lock:
            self._held_bytes -= size_bytes
