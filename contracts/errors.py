"""The error tree. Foreign exceptions stop at the edge and become one of these.

TriageError
├── SettingsError               an unknown or wrong setting: the start stops with a sentence
├── DecodeError                 a record or event that cannot be read; carries its bytes
├── Rejected                    an object the producer refuses, with a reason
├── ModelRefused                a model file, or a repository, that is not what may be served
├── NotAnalysable               an image that cannot be scored, with a reason: the image's own fault
└── PeerError                   another program's fault, never the image's
    ├── PeerAway (retriable)    not reachable, or shutting down
    ├── PeerBusy (retriable)    reachable, refuses for now: full buffer, full queue
    ├── PeerTimeout (retriable) no answer within the deadline
    └── PeerRefused             it answered, and the answer is no: asking again will not help
"""

from typing import ClassVar

from contracts.reasons import Reason


class TriageError(Exception):
    """Base of all errors of this project."""

    retriable: ClassVar[bool] = False


class SettingsError(TriageError):
    """A setting that is unknown, wrong or missing. The message is a sentence for the person who starts it."""


class DecodeError(TriageError):
    """Bytes from a topic or a store that are not what the codec expects."""

    def __init__(self, message: str, payload: bytes) -> None:
        super().__init__(message)
        self.payload = payload


class ModelRefused(TriageError):
    """A model that may not be served or imported. The message names the file and says why."""


class _WithReason(TriageError):
    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class Rejected(_WithReason):
    """The producer does not take this object. ``detail`` never carries patient data."""


class NotAnalysable(_WithReason):
    """This image cannot be scored and trying again cannot help. ``detail`` never carries patient data."""


class PeerError(TriageError):
    """Another program failed us: the broker, the queue, the inference server, a store."""

    def __init__(self, peer: str, detail: str = "") -> None:
        super().__init__(f"{peer}: {detail}" if detail else peer)
        self.peer = peer
        self.detail = detail


class PeerAway(PeerError):
    """The peer cannot be reached."""

    retriable = True


class PeerBusy(PeerError):
    """The peer, or our buffer towards it, is full for now."""

    retriable = True


class PeerTimeout(PeerError):
    """The peer did not answer within the deadline."""

    retriable = True


class PeerRefused(PeerError):
    """The peer answered no; the same request will get the same answer."""
