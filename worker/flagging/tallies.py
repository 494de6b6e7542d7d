"""Counts over a study's images, kept as they change, so that an event costs its own image and not the study. Pure."""

from collections import Counter
from dataclasses import dataclass

from contracts.reasons import Reason
from worker.flagging.image import Image


@dataclass(frozen=True, slots=True)
class _Tally:
    """What one image adds."""

    settled: bool
    scored: bool
    reasons: frozenset[Reason]
    models: frozenset[str]


class Tallies:
    """How many images wait, how many are scored, and why others are not."""

    def __init__(self) -> None:
        self._of: dict[str, _Tally] = {}
        self._reasons: Counter[Reason] = Counter()
        self._models: Counter[str] = Counter()
        self._digests: dict[str, set[str]] = {}
        self._same_uid = 0
        self.settled = 0
        self.scored = 0

    def put(self, image: Image) -> None:
        """Counts an image anew."""
        before, after = self._of.get(image.key), _tally(image)
        if before is None:
            self._identity(image)
        else:
            self._add(before, -1)
        self._of[image.key] = after
        self._add(after, 1)

    @property
    def unsettled(self) -> int:
        """Images without an outcome."""
        return len(self._of) - self.settled

    @property
    def reasons(self) -> frozenset[Reason]:
        """Every reason of every image, once."""
        return frozenset(+self._reasons)

    @property
    def models(self) -> tuple[str, ...]:
        """The models that scored, ``name:version``."""
        return tuple(sorted(+self._models))

    @property
    def other_pixels(self) -> bool:
        """Whether one SOP Instance UID came with different pixels."""
        return self._same_uid > 0

    def _add(self, tally: _Tally, sign: int) -> None:
        self.settled += sign * tally.settled
        self.scored += sign * tally.scored
        for reason in tally.reasons:
            self._reasons[reason] += sign
        for model in tally.models:
            self._models[model] += sign

    def _identity(self, image: Image) -> None:
        digests = self._digests.setdefault(image.sop_instance_uid, set())
        digests.add(image.pixel_digest)
        self._same_uid += len(digests) == 2  # noqa: PLR2004 - counted once, when a second picture appears


def _tally(image: Image) -> _Tally:
    scores = [frame.score for frame in image.frames.values() if frame.score is not None]
    models = frozenset(f"{score.model}:{score.version}" for score in scores)
    return _Tally(image.settled, bool(scores), image.reasons(), models)
