"""Clock and chance: when an object came in, and the trace it begins."""

import secrets
import time


def now_s() -> float:
    """Epoch seconds."""
    return time.time()


def monotonic_s() -> float:
    """Seconds of a clock that never goes back."""
    return time.monotonic()


def traceparent() -> str:
    """A new W3C trace context (Trace Context 3.2), sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
