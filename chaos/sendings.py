"""Who sends what, and after what: the load as so many pieces, each sent over an association or requests of its own.

Pure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from chaos.phantoms import Head, Picture
from chaos.scenario import Load, Order

LATE_IMAGES = (1, 3)  # of a study, sent after it has closed
MINUTES_LATE_S = (120.0, 240.0)  # one of the late pieces, with some seeds: a scanner that was set aside
MINUTES_LATE_ONE_IN = 4  # seeds: such a run takes minutes
PIECE_IMAGES = 3  # a shuffled study comes over several associations at once, in pieces of at least so many


@dataclass(frozen=True, slots=True)
class Sending:
    """Pictures of one study in the order they are sent. ``producer``: the index of the one to begin with.

    ``late``: only after the study has closed, and ``pause_s`` after that.
    """

    study_instance_uid: str
    pictures: tuple[Picture, ...] = field(repr=False)
    producer: int
    stow: bool
    stat: bool
    late: bool = False
    pause_s: float = 0.0


def sendings(studies: Sequence[Head], load: Load, producers: int, seed: int) -> list[Sending]:
    """In the order they are begun; late ones come last, of those the one that is minutes late first."""
    dice = Random(f"sendings {seed}")
    by_stow = set(dice.sample(range(len(studies)), round(load.stow * len(studies))))
    pieces = [
        Sending(study.study_instance_uid, images, dice.randrange(producers), nth in by_stow, study.stat, late)
        for _ in range(load.copies)
        for nth, study in enumerate(studies)
        for images, late in _pieces(study, load.order, dice)
    ]
    pieces.sort(key=lambda piece: piece.late)
    first_late = next((nth for nth, piece in enumerate(pieces) if piece.late), None)
    if first_late is not None and seed % MINUTES_LATE_ONE_IN == 0:
        pieces[first_late] = replace(pieces[first_late], pause_s=dice.uniform(*MINUTES_LATE_S))
    return pieces


def _pieces(study: Head, order: Order, dice: Random) -> Iterator[tuple[tuple[Picture, ...], bool]]:
    if order is Order.IN_ORDER:
        yield study.pictures, False
        return
    shuffled = dice.sample(study.pictures, len(study.pictures))
    late = dice.randint(*LATE_IMAGES)
    at_once, afterwards = shuffled[late:], shuffled[:late]
    parts = max(1, len(at_once) // PIECE_IMAGES)
    yield from ((tuple(at_once[part::parts]), False) for part in range(parts))
    yield tuple(afterwards), True
