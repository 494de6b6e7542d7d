"""The whole way of images through our own code: taken in, scored, folded into the view."""

from collections.abc import Iterator
from contextlib import suppress

from chaos.fuzz.doubles import SoundModel
from chaos.fuzz.log_targets import APPENDED_S, folded
from chaos.fuzz.parcel import unpack
from chaos.fuzz.scoring_targets import analyser
from chaos.fuzz.target import Call
from contracts import events
from contracts.errors import Rejected
from contracts.scans import Place
from contracts.settings import FlaggingSettings
from contracts.worklist import WorklistItem
from producer.intake import Door, Received, examine
from producer.lanes import Lanes
from worker.flagging.view import Raw
from worker.scoring.analysis import Work

POSITIVE = 0.99


def image_to_view() -> Call:
    """Whatever is accepted at the door ends as a settled image in its study's row, however its events are batched."""
    rules, model = FlaggingSettings(), SoundModel(POSITIVE)

    def call(data: bytes) -> None:
        told = [event for part10 in unpack(data) for event in _events(part10, model)]
        raws = [Raw(n, APPENDED_S + n, event.key, events.encode(event)) for n, event in enumerate(told)]
        rows = folded(raws, rules, len(raws) or 1)
        if rows != folded(raws, rules, 1):
            raise AssertionError("records folded one by one give another view")
        if set(rows) != {event.study_instance_uid for event in told}:
            raise AssertionError("an accepted image has no study")
        for row in map(WorklistItem.model_validate_json, rows.values()):
            if row.images_settled != row.images_received:
                raise AssertionError("an accepted image is not settled")

    return call


def _events(part10: bytes, model: SoundModel) -> Iterator[events.Arrived | events.Scored | events.NotAnalysed]:
    """As producer and scoring append them; nothing where the door refuses the object."""
    with suppress(Rejected):
        accepted = examine(Received(part10, Door.STOW, "stow", 1.0, ""), Lanes(()))
        yield accepted.arrived
        yield from analyser().events(Work(accepted.headers, part10, Place("scans.routine", 0, 0), 1.0), model.ask)
