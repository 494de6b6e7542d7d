"""A study's state is a fold over its events. Pure.

The same images, scores and reasons give the same state and assessment in whatever order they came, however often each
was delivered; history alone follows the log's order. Events at or before the last applied offset change nothing, so a
replay is harmless. Only effective image events move the fences against which Closed and Expired are checked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from contracts.events import Arrived, Closed, Expired, NotAnalysed, Scored, StudyEvent
from contracts.names import Lane
from contracts.reasons import Reason
from contracts.settings import FlaggingSettings
from contracts.worklist import Change, HistoryEntry, StoredImage, WorklistItem
from worker.flagging import ordering
from worker.flagging.assessment import Assessment, Standing, assess
from worker.flagging.image import Image, outcome_of
from worker.flagging.stored import NEVER, FrameFold, Heading, StudyFold
from worker.flagging.tallies import Tallies
from worker.flagging.transitions import Moment, changes
from worker.flagging.verdict import Evidence


@dataclass(frozen=True, slots=True)
class Logged:
    """An event with its place in the partition and the broker's time of append (epoch seconds)."""

    event: StudyEvent
    offset: int
    appended_at: float


@dataclass(slots=True)
class Touched:
    """What changed since it was last taken for writing."""

    images: set[str] = field(default_factory=set)
    frames: set[tuple[str, int | None]] = field(default_factory=set)


class Study:
    """One study. ``apply`` folds one event in; the rest tells what came of it."""

    def __init__(self, study_instance_uid: str, rules: FlaggingSettings, fold: StudyFold | None = None) -> None:
        self.uid = study_instance_uid
        self.fold = fold or StudyFold()
        self.images: dict[str, Image] = {}
        self._rules = rules
        self._evidence = Evidence(rules)
        self._tallies = Tallies()
        self._touched = Touched()
        self._moment: Moment | None = None  # None until the first event

    @classmethod
    def stored(
        cls,
        study_instance_uid: str,
        rules: FlaggingSettings,
        fold: StudyFold,
        images: Mapping[str, StoredImage],
        frames: Mapping[tuple[str, int | None], FrameFold],
    ) -> "Study":
        """Takes a study up again from what Redis keeps. Keys of ``frames``: image key and frame."""
        study = cls(study_instance_uid, rules, fold)
        study.images = {key: Image.stored(image) for key, image in images.items()}
        for (key, number), frame in frames.items():
            study.images[key].frames[number] = frame
            study._weigh(study.images[key], number)
        for image in study.images.values():
            study._tallies.put(image)
        study._moment = study._now()
        return study

    @property
    def assessment(self) -> Assessment:
        """The service's word on the study now."""
        return (self._moment or self._now()).word

    @property
    def unsettled(self) -> int:
        """Images that arrived and wait for an outcome."""
        return self._tallies.unsettled

    @property
    def closed(self) -> bool:
        """Closed over its last image, with everything settled: a later image opens it again."""
        fence = self.fold.closed_after
        return fence is not None and fence >= self.fold.last_arrival_offset and self.unsettled == 0

    @property
    def arrived_at(self) -> float:
        """Arrival of the first image (epoch seconds)."""
        known = (self.fold.arrived_at, self.fold.implied_at)
        return next((at for at in known if at is not None), self.fold.last_arrival_at)

    @property
    def waiting_since(self) -> float:
        """Arrival of the oldest image that waits for an outcome: later ones do not put its deadline off."""
        waiting = (image.arrived_at for image in self.images.values() if not image.settled)
        return min((at for at in waiting if at is not None), default=self.fold.last_arrival_at)

    def waits(self, image: str) -> tuple[Lane, float] | None:
        """The lane in which an image waits for an outcome, and since when; None where it waits no longer."""
        one = self.images[image]
        at = self.fold.last_arrival_at if one.arrived_at is None else one.arrived_at
        return None if one.settled else (one.lane, at)

    def apply(self, logged: Logged) -> list[HistoryEntry]:
        """Folds one event in and tells the changes it made. At or before ``fold.offset`` it changes nothing."""
        if logged.offset <= self.fold.offset:
            return []
        self._keep(offset=logged.offset)
        self._heal(logged.event.key)
        match logged.event:
            case Arrived() as event:
                self._arrive(event, logged)
            case NotAnalysed(reason=Reason.RECORD_LOST) as event if self._settled(event):
                pass  # a timer's word on a record that was not lost after all
            case Scored() | NotAnalysed() as event:
                self._settle(event, logged)
            case Closed(after_offset=after) if after >= self.fold.last_image_offset:
                self._keep(closed_after=after, closed_at=logged.appended_at)
            case Expired(after_offset=after) if after >= self.fold.last_image_offset and self.unsettled:
                self._keep(expired=True)
            case _:
                pass  # a timer's event over an image that it had not seen
        return self._conclude(logged.offset, logged.appended_at)

    def apply_unreadable(self, key: bytes, offset: int, appended_at: float) -> list[HistoryEntry]:
        """An event of this study that cannot be read: whatever it said, the study is not fully analysed.

        A readable event of the same record key, sent again, heals it.
        """
        if offset <= self.fold.offset:
            return []
        self._keep(offset=offset, unreadable=tuple(sorted({*self.fold.unreadable, key.hex()})))
        self._new_arrival(offset, appended_at)
        return self._conclude(offset, appended_at)

    def item(self) -> WorklistItem:
        """The row readers see, position aside."""
        word, fold, rules = self.assessment, self.fold, self._rules
        heading = fold.heading or Heading(at=0.0, image="")
        return WorklistItem(
            study_instance_uid=self.uid,
            patient=heading.patient,
            accession_number=heading.accession_number,
            study_description=heading.study_description,
            modality=heading.modality,
            source=heading.source,
            lane=fold.lane,
            state=word.state,
            provisional=word.provisional,
            reason=word.reason,
            notes=word.notes,
            urgency=word.urgency,
            findings=word.findings,
            images_received=len(self.images),
            images_settled=self._tallies.settled,
            arrived_at=self.arrived_at,
            due_at=ordering.due_at(self.arrived_at, word.urgency, rules),
            rank=ordering.rank(self.arrived_at, word.urgency, rules),
            flagged_at=fold.flagged_at,
            closed=self.closed,
            models=self._tallies.models,
        )

    def in_new_log(self, epoch: int) -> None:
        """Offsets start again: the broker lost its log, or this study is new. What is known stays."""
        self.fold = self.fold.in_new_log(epoch)
        for image in self.images.values():
            image.frames = {
                number: frame.model_copy(update={"offset": NEVER}) for number, frame in image.frames.items()
            }

    def stored_fold(self) -> StudyFold:
        """The fold as it is stored: it knows how much is stored beside it."""
        frames = sum(len(image.frames) for image in self.images.values())
        return self.fold.model_copy(update={"images": len(self.images), "frames": frames})

    def take_touched(self) -> Touched:
        """What changed since the last call."""
        touched, self._touched = self._touched, Touched()
        return touched

    def _arrive(self, event: Arrived, logged: Logged) -> None:
        at = ordering.arrival(event.at, logged.appended_at)
        image = self._image(event, logged)
        image.arrive(event, at, logged.appended_at)
        self._touch(image)
        known = [earlier for earlier in (self.fold.arrived_at, at) if earlier is not None]
        self._keep(arrived_at=min(known), lane=Lane.STAT if Lane.STAT in (self.fold.lane, event.lane) else event.lane)
        self._keep(patient_ids=tuple(sorted({*self.fold.patient_ids, event.patient.patient_id} - {""})[:2]))
        self._head(event, at, image.key)

    def _head(self, event: Arrived, at: float, image: str) -> None:
        known = self.fold.heading
        if known is not None and (known.at, known.image) <= (at, image):
            return
        heading = Heading(
            at=at,
            image=image,
            patient=event.patient,
            accession_number=event.accession_number,
            study_description=event.study_description,
            modality=event.modality,
            source=event.source,
        )
        self._keep(heading=heading)

    def _settle(self, event: Scored | NotAnalysed, logged: Logged) -> None:
        image = self._image(event, logged)
        if not image.settle(event.frame, outcome_of(event, logged.offset), event.frames):
            return
        self._keep(last_image_offset=logged.offset)
        self._weigh(image, event.frame)
        self._touch(image)
        self._touched.frames.add((image.key, event.frame))
        if not self.unsettled:
            self._keep(expired=False)

    def _settled(self, event: NotAnalysed) -> bool:
        known = self.images.get(Image(event.sop_instance_uid, event.pixel_digest, "").key)
        return known is not None and known.settled

    def _image(self, event: Arrived | Scored | NotAnalysed, logged: Logged) -> Image:
        """The event's image; a new one moves the fences and starts the quiet period again."""
        image = Image(event.sop_instance_uid, event.pixel_digest, event.series_instance_uid)
        if image.key in self.images:
            return self.images[image.key]
        self.images[image.key] = image
        self._touch(image)
        self._new_arrival(logged.offset, logged.appended_at)
        return image

    def _new_arrival(self, offset: int, appended_at: float) -> None:
        implied = min(appended_at, self.fold.implied_at or appended_at)
        latest = max(appended_at, self.fold.last_arrival_at)
        self._keep(last_image_offset=offset, last_arrival_offset=offset, last_arrival_at=latest, implied_at=implied)

    def _weigh(self, image: Image, frame: int | None) -> None:
        score = image.frames[frame].score
        if score is not None:
            self._evidence.put((image.key, frame), score.slice_of(image.sop_instance_uid))

    def _touch(self, image: Image) -> None:
        self._tallies.put(image)
        self._touched.images.add(image.key)

    def _heal(self, key: bytes) -> None:
        if self.fold.unreadable:
            self._keep(unreadable=tuple(one for one in self.fold.unreadable if one != key.hex()))

    def _keep(self, **fields: object) -> None:
        self.fold = self.fold.model_copy(update=fields)

    def _now(self) -> Moment:
        unreadable = {Reason.RECORD_UNREADABLE} if self.fold.unreadable else set()
        standing = Standing(
            closed=self.closed,
            delayed=self.fold.expired,
            scored_images=self._tallies.scored,
            reasons=self._tallies.reasons | unreadable,
            other_pixels=self._tallies.other_pixels,
            other_patient=len(self.fold.patient_ids) > 1,
        )
        return Moment(assess(self._evidence.findings(final=self.closed), standing), self.closed)

    def _conclude(self, offset: int, appended_at: float) -> list[HistoryEntry]:
        before, after = self._moment, self._now()
        self._moment = after
        told = changes(before, after)
        if Change.FLAGGED in told:
            self._keep(flagged_at=appended_at)
        elif not after.flagged:
            self._keep(flagged_at=None)
        return [self._entry(change, offset, appended_at) for change in told]

    def _entry(self, change: Change, offset: int, appended_at: float) -> HistoryEntry:
        word = self.assessment
        return HistoryEntry(
            at=appended_at,
            offset=offset,
            change=change,
            state=word.state,
            provisional=word.provisional,
            reason=word.reason,
            urgency=word.urgency,
            findings=tuple(finding.name for finding in word.findings),
            models=self._tallies.models,
        )
