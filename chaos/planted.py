"""Bugs that a hurried change could bring in, and the run that must find each: a checker that never fails proves
nothing. Pure.

A bug is one replacement in one file of a copy of the tree (chaos/planted_call). Under its fault the ledger must report
a violation of an invariant it ``breaks``; the tree as it is must report none under the same fault and seed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from chaos.faults import redis_call
from chaos.faults.signals_call import freeze, thaw
from chaos.faults.trouble import back
from chaos.scenario import Disk, Fault, Load, Mood, Rig
from launch.stack.part import Part

SEED = 11
SMALL = Load(studies=6, images=(6, 7), rate=20.0, stow=0.2, large=0.1)
UNTIL_IN_FLIGHT_S = 3.0  # both workers hold what they may, and have committed what they would
WITHOUT_BROKERS_S = 2.0  # shorter than the brokers' own session: they come back as they were
UNANSWERED_S, ANSWERED_S = 0.3, 0.2  # within redis.timeout_s: the client repeats it on a whole connection
TIMES = 24  # for as long as a busy machine needs to take some images in
FULL_S = 3.0  # long enough for a sender to come back to the producer that it tried first


class NotPlanted(Exception):
    """The code has changed: the bug's old text is not there exactly once, and the bug has to be written anew."""


@dataclass(frozen=True, slots=True)
class Bug:
    """One replacement. ``file``: below the root of the tree.

    ``breaks``: the invariants of which one must speak, I1 to I7. More than one where timing decides what the bug does
    first: an image whose event nobody reads is unsettled (I1) or leaves its study open (I2). ``says``: words of the
    check that must be the one, where others share its invariant.
    """

    name: str
    file: str
    old: str
    new: str
    fault: Fault
    breaks: frozenset[str]
    says: str = ""

    def seen_in(self, violations: Iterable[str]) -> bool:
        """Whether one of the sentences is what the bug must bring about."""
        return any(told.split()[0] in self.breaks and self.says in told for told in violations)

    def planted(self, source: str) -> str:
        """The file with the bug in it. Raises NotPlanted."""
        if source.count(self.old) != 1:
            raise NotPlanted(f"{self.name}: {self.file} holds its old text {source.count(self.old)} times")
        return source.replace(self.old, self.new)


def _nothing(_: Rig, __: Random) -> str:
    return "nothing"


def _slow(rig: Rig, _: Random) -> str:
    """The model is slow for a while, so images wait."""
    rig.model(Mood.SLOW)
    rig.pause(UNTIL_IN_FLIGHT_S)
    rig.model(Mood.SOUND)
    return "a slow model"


def _die_with_images_in_flight(rig: Rig, _: Random) -> str:
    rig.model(Mood.HANG)
    rig.pause(UNTIL_IN_FLIGHT_S)
    _kill(rig.workers)
    rig.model(Mood.SOUND)
    back(rig.workers)
    return "kill -9 of both workers, with images in flight"


def _die_before_the_acknowledgement(rig: Rig, _: Random) -> str:
    freeze(rig.brokers)
    rig.pause(WITHOUT_BROKERS_S)
    _kill(rig.producers)
    thaw(rig.brokers)
    back(rig.producers)
    return "kill -9 of both producers while no broker answered"


def _full_disk(rig: Rig, _: Random) -> str:
    rig.disk(Disk.FULL)
    rig.pause(FULL_S)
    rig.disk(Disk.SOUND)
    return "a full disk below the claim check"


def _unanswered_scripts(rig: Rig, __: Random) -> str:
    for _ in range(TIMES):
        rig.links["redis"].one_way()
        rig.pause(UNANSWERED_S)
        rig.links["redis"].heal()
        rig.pause(ANSWERED_S)
    return "Redis runs scripts whose answers are lost, and gets them again"


def _emptied(rig: Rig, _: Random) -> str:
    rig.pause(UNTIL_IN_FLIGHT_S)
    redis_call.emptied(rig.redis)
    return "FLUSHALL"


def _kill(parts: Sequence[Part]) -> None:
    for part in parts:
        part.strike()
    for part in parts:
        part.kill()


POISON = Fault("planted_poison", "an image that no decoder reads", _nothing, Load(6, (6, 7), positive=0.0, poison=3))
CALM = Fault("planted_calm", "nothing is wrong", _nothing, SMALL)
SLOW = Fault("planted_slow", "images wait for their score", _slow, SMALL)
IN_FLIGHT = Fault("planted_in_flight", "workers die with images in flight", _die_with_images_in_flight, SMALL)
UNACKNOWLEDGED = Fault(
    "planted_unacknowledged", "producers die with images in flight", _die_before_the_acknowledgement, SMALL
)
FULL = Fault("planted_full_disk", "claims cannot be written", _full_disk, Load(6, (6, 7), rate=15.0, large=0.5))
UNANSWERED = Fault("planted_unanswered", "scripts run and are never answered", _unanswered_scripts, SMALL)
EMPTIED = Fault("planted_emptied", "the view is gone", _emptied, SMALL)

BUGS: tuple[Bug, ...] = (
    Bug(
        name="an offset is committed before its image is settled",
        file="worker/scoring/checkpoint.py",
        old="return next(iter(self._open), self._next)",
        new="return self._next",
        fault=IN_FLIGHT,
        breaks=frozenset({"I1"}),
    ),
    Bug(
        name="Success is answered before the acknowledgement",
        file="producer/kafka_out.py",
        old="_wait([self._log.append(entry) for entry in self._entries(accepted, payload, partition)], deadline)",
        new='[Place("", 0, 0) for entry in self._entries(accepted, payload, partition) if self._log.append(entry)]',
        fault=UNACKNOWLEDGED,
        breaks=frozenset({"I1"}),
    ),
    Bug(
        name="an image is remembered as stored before it is, so its resend is called a duplicate",
        file="producer/reception.py",
        old="        ready, payload = self._with_claim(accepted, received.part10)\n",
        new="        self._memory.remember(accepted.headers, self._clock())\n"
        "        ready, payload = self._with_claim(accepted, received.part10)\n",
        fault=FULL,
        breaks=frozenset({"I1"}),
    ),
    Bug(
        name="a store that fails is taken for one that took the payload",
        file="producer/payload_out.py",
        old='raise PeerAway("payload store", type(problem).__name__) from problem',
        new="self._state = type(problem).__name__",
        fault=FULL,
        breaks=frozenset({"I1"}),
    ),
    Bug(
        name="the event of an image that cannot be scored is swallowed",
        file="worker/scoring/settling.py",
        old="for event in self._events(record, work)]",
        new="for event in self._events(record, work) if isinstance(event, Scored)]",
        fault=POISON,
        breaks=frozenset({"I1", "I2"}),
    ),
    Bug(
        name="the dead letter of an image at fault is swallowed",
        file="worker/scoring/telling.py",
        old="        self._insist.until_done(record, letter)\n",
        new="        del letter\n",
        fault=POISON,
        breaks=frozenset({"I1"}),
        says="has no dead letter",
    ),
    Bug(
        name="a failed image counts for nothing",
        file="worker/flagging/assessment.py",
        old="    failed = _of(standing, Category.FAILED)\n    if failed",
        new="    failed = _of(standing, Category.STUDY)\n    if failed",
        fault=POISON,
        breaks=frozenset({"I7"}),
    ),
    Bug(
        name="a study is called normal while it still receives",
        file="worker/flagging/assessment.py",
        old="    if not standing.closed:\n        return (StudyState.RECEIVING, None)\n",
        new="",
        fault=SLOW,
        breaks=frozenset({"I7"}),
    ),
    Bug(
        name="a flag is dropped when its study closes",
        file="worker/flagging/assessment.py",
        old="    if findings:\n",
        new="    if findings and not standing.closed:\n",
        fault=CALM,
        breaks=frozenset({"I4"}),
    ),
    Bug(
        name="the script does not compare the offset it writes over",
        file="worker/flagging/keys.lua",
        old="  if held[2] ~= expect then return 'lost' end\n",
        new="",
        fault=UNANSWERED,
        breaks=frozenset({"I1", "I3"}),
    ),
    Bug(
        name="an emptied view is resumed from the group's watermark",
        file="worker/flagging/service.py",
        old="self._source.start(owner.number, offset)",
        new="self._source.start(owner.number, max(offset, announced))",
        fault=EMPTIED,
        breaks=frozenset({"I1", "I2"}),
    ),
)
