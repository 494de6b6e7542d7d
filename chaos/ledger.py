"""The ledger: what the service acknowledged, and what is true of it. Pure; safe from many threads.

Every C-STORE Success and every STOW 200 is entered the moment it is heard. What was refused, or never answered, is no
debt: it may be in the log all the same, and then it has to be settled like any other.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from chaos.phantoms import Head, Picture

NEIGHBOURS = 2  # slices apart: 10 mm, within flagging.max_gap_mm

Key = tuple[str, str, str]  # study, SOP Instance UID, digest of the data set


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One image that the service said it has. ``at_s``: monotonic, of the first such answer."""

    picture: Picture
    at_s: float


@dataclass(frozen=True, slots=True)
class Action:
    """One reader's action that was answered 200."""

    study_instance_uid: str
    id: str


def key_of(picture: Picture) -> Key:
    """What tells one image from all others."""
    return (picture.study_instance_uid, picture.sop_instance_uid, picture.digest)


class Ledger:
    """One run's."""

    def __init__(self, studies: Sequence[Head]) -> None:
        self.studies = {study.study_instance_uid: study for study in studies}
        self._lock = threading.Lock()
        self._acknowledged: dict[Key, Acknowledged] = {}
        self._given_up: dict[Key, Picture] = {}
        self._actions: list[Action] = []
        self.answers = 0  # acknowledgements, copies of one image counted each

    def acknowledge(self, picture: Picture, at_s: float) -> None:
        """The service has answered that it has the image."""
        with self._lock:
            self.answers += 1
            self._acknowledged.setdefault(key_of(picture), Acknowledged(picture, at_s))

    def give_up(self, picture: Picture) -> None:
        """A sender has stopped trying."""
        with self._lock:
            self._given_up[key_of(picture)] = picture

    def act(self, action: Action) -> None:
        """A reader's action was answered 200."""
        with self._lock:
            self._actions.append(action)

    @property
    def acknowledged(self) -> tuple[Acknowledged, ...]:
        """Each image once, in the order of their first acknowledgements."""
        with self._lock:
            return tuple(self._acknowledged.values())

    @property
    def given_up(self) -> tuple[Picture, ...]:
        """What no copy of which was ever acknowledged, after all tries."""
        with self._lock:
            return tuple(p for key, p in self._given_up.items() if key not in self._acknowledged)

    @property
    def actions(self) -> tuple[Action, ...]:
        """Every action answered 200."""
        with self._lock:
            return tuple(self._actions)

    def owed(self) -> dict[str, list[Acknowledged]]:
        """What is acknowledged, by study."""
        found: dict[str, list[Acknowledged]] = {}
        for one in self.acknowledged:
            found.setdefault(one.picture.study_instance_uid, []).append(one)
        return found


def is_finding(pictures: Sequence[Picture]) -> bool:
    """Whether these images alone must flag their study: lesions on two neighbouring slices (worker/flagging/verdict).

    Two pictures of one slice are one witness.
    """
    sick = sorted({picture.nth for picture in pictures if picture.lesion})
    return any(after - before <= NEIGHBOURS for before, after in pairwise(sick))
