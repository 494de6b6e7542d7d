"""One image of a study: what its frames' events add up to. Pure.

An image is a SOP Instance UID with a pixel digest: the same instance resent is the same image, the same UID with other
pixels is a second one. A multi-frame instance is one image, settled when all its frames are, or when one event spoke
for the whole instance.
"""

from dataclasses import dataclass, field

from contracts.events import Arrived, NotAnalysed, Scored
from contracts.findings import ImageOutcome, Label
from contracts.names import Lane
from contracts.reasons import Category, Reason
from contracts.worklist import ImageItem, StoredImage
from worker.flagging.stored import FrameFold, Score

# Which frame speaks for a multi-frame image: one failure matters more than a score, a score more than the rest.
_OUTCOME_OF = {
    Category.FAILED: ImageOutcome.NOT_ANALYSED,
    Category.OUT_OF_SCOPE: ImageOutcome.NOT_ANALYSED,
    Category.EXCLUDED: ImageOutcome.EXCLUDED,
}
_REASON_ORDER = {reason: place for place, reason in enumerate(Reason)}


@dataclass(slots=True)
class Image:
    """One image. ``frames`` maps a 0-based frame, or None for the whole instance, to what became of it.

    ``copies``: lane → when its newest arrival was appended. ``settlements``: how often it went from waiting to
    settled; ``written`` of them are in the store, which adds the others up, so that an effect that gets in twice shows.
    """

    sop_instance_uid: str
    pixel_digest: str
    series_instance_uid: str
    digest: str = ""
    frame_count: int = 1
    arrived_at: float | None = None
    frames: dict[int | None, FrameFold] = field(default_factory=dict)
    copies: dict[Lane, float] = field(default_factory=dict)
    settlements: int = 0
    written: int = 0

    @classmethod
    def stored(cls, stored: StoredImage) -> "Image":
        """As Redis keeps it; the frames come from another hash."""
        item = stored.item
        known = (item.sop_instance_uid, stored.pixel_digest, item.series_instance_uid, item.digest, item.frames)
        settlements = item.settlements
        return cls(*known, stored.arrived_at, copies=dict(stored.copies), settlements=settlements, written=settlements)

    @property
    def key(self) -> str:
        """The field name in Redis."""
        return f"{self.sop_instance_uid}|{self.pixel_digest}"

    @property
    def lane(self) -> Lane:
        """The lane in which it is scored first."""
        return Lane.STAT if Lane.STAT in self.copies else Lane.ROUTINE

    def arrive(self, event: Arrived, arrived_at: float, appended_at: float) -> None:
        """Fills in what only the producer knows; of several deliveries the earliest counts."""
        self.copies[event.lane] = max(appended_at, self.copies.get(event.lane, appended_at))
        if self.arrived_at is None or (arrived_at, event.digest) < (self.arrived_at, self.digest):
            self.arrived_at, self.digest = arrived_at, event.digest
        self.frame_count = max(self.frame_count, event.frames)

    def settle(self, frame: int | None, outcome: FrameFold, frames: int) -> bool:
        """Whether the event changed anything: an equal redelivery does not."""
        grown = frames > self.frame_count
        self.frame_count = max(self.frame_count, frames)
        before = self.frames.get(frame)
        if before is not None and not before.yields_to(outcome):
            return grown
        waited = not self.settled
        self.frames[frame] = outcome
        self.settlements += waited and self.settled
        return grown or before is None or not before.same_content(outcome)

    @property
    def settled(self) -> bool:
        """Whether every frame has its outcome."""
        return None in self.frames or len(self.frames) >= self.frame_count

    @property
    def scored(self) -> bool:
        """Whether any frame was scored."""
        return any(frame.score is not None for frame in self.frames.values())

    def reasons(self) -> frozenset[Reason]:
        """Why frames have no score. The whole instance's reason stands while any frame is without a score."""
        scored = sum(frame.score is not None for frame in self.frames.values())
        complete = scored >= self.frame_count
        told = ((number, frame.reason) for number, frame in self.frames.items() if frame.reason is not None)
        return frozenset(reason for number, reason in told if number is not None or not complete)

    def speaking(self) -> tuple[ImageOutcome, Reason | None]:
        """The outcome of an image that is settled, and its reason."""
        by_category: dict[Category, Reason] = {}
        for reason in sorted(self.reasons(), key=_REASON_ORDER.__getitem__):
            by_category.setdefault(reason.category, reason)
        if Category.FAILED not in by_category and self.scored:
            return (ImageOutcome.SCORED, None)
        for category, outcome in _OUTCOME_OF.items():
            if category in by_category:
                return (outcome, by_category[category])
        return (ImageOutcome.NOT_ANALYSED, next(iter(by_category.values()), None))

    def stored_image(self) -> StoredImage:
        """As Redis keeps it."""
        return StoredImage(
            item=self.item(), pixel_digest=self.pixel_digest, arrived_at=self.arrived_at, copies=self.copies
        )

    def take(self) -> StoredImage:
        """What goes into Redis: of the settlements those that are new, for the script to add."""
        stored = self.stored_image()
        new, self.written = self.settlements - self.written, self.settlements
        return stored.model_copy(update={"item": stored.item.model_copy(update={"settlements": new})})

    def item(self) -> ImageItem:
        """The row readers see."""
        outcome, reason = self.speaking() if self.settled else (None, None)
        return ImageItem(
            sop_instance_uid=self.sop_instance_uid,
            series_instance_uid=self.series_instance_uid,
            digest=self.digest,
            frames=self.frame_count,
            outcome=outcome,
            reason=reason,
            settlements=self.settlements,
            probability=self._probability(),
        )

    def _probability(self) -> float | None:
        scores = [frame.score for frame in self.frames.values() if frame.score is not None]
        answers = [score.measures[Label.ANY] for score in scores if Label.ANY in score.measures]
        return max((answer.probability for answer in answers), default=None)


def outcome_of(event: Scored | NotAnalysed, offset: int) -> FrameFold:
    """What a settling event says of its frame."""
    if isinstance(event, NotAnalysed):
        return FrameFold(offset=offset, reason=event.reason)
    score = Score(
        series_instance_uid=event.series_instance_uid,
        orientation=event.orientation,
        position_mm=event.position_mm,
        thickness_mm=event.thickness_mm,
        model=event.model,
        version=event.model_version,
        measures=event.measures,
    )
    return FrameFold(offset=offset, score=score)
