"""One run: a seeded load, a blow at a seeded moment, the clock of I6, the checks. Every wait has a limit."""

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

from chaos.answers import Answers, ListTold
from chaos.checks import Case, counts, unended, violations, waiting
from chaos.faults.trouble import Shown
from chaos.ledger import Ledger
from chaos.load_out import Doors, Scanners
from chaos.log_in import LogUnread, read_log
from chaos.phantoms import heads
from chaos.rig_call import RunningRig
from chaos.scenario import RECOVERY_S, Fault, Load, Outcome
from chaos.sightings import Sightings
from chaos.watch_in import Away, Watch, connected, read_list, read_studies
from contracts.names import Topics

UNPACED_S = 3.0  # to send a load as fast as it is taken, about
INSIST_S = 240.0  # a sender's patience: outages of two minutes, then twice the time in which we must be back
SENDERS_LIMIT_S = INSIST_S + 60.0  # late images begin half a minute later, or by what the scanners tell later still
ACT_LIMIT_S = 600.0  # ten rolling restarts on a busy machine; every outage, and every part's own limit to start
HEALTHY_S = 60.0  # for all parts to see each other again before the next run
READ_LIMIT_S = 30.0  # for reads that nobody refuses
LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Pace:
    """When the act begins, as a share of the time that the load takes to send, and how long a run waits after it.

    ``recovery_s``: I6. ``ended_s``: after the last image, for every study to come to its end; flagging.deadline_s is
    30 s on the rig, and then comes the quiet period.
    """

    moment: tuple[float, float] = (0.05, 0.7)
    recovery_s: float = RECOVERY_S
    ended_s: float = 90.0


PACE = Pace()


def one_run(rig: RunningRig, fault: Fault, seed: int, pace: Pace = PACE) -> Outcome:
    """On a healthy rig; what it leaves behind is for the caller to heal. An interrupt interrupts the rig, too."""
    try:
        return _Run(rig, fault, seed, pace).outcome()
    except KeyboardInterrupt:
        rig.interrupt()
        raise


def sending_s(load: Load) -> float:
    """How long its scanners send, about."""
    images = load.studies * sum(load.images) / 2 * load.copies
    return images / load.rate if load.rate else UNPACED_S


class _Act(threading.Thread):
    """The act beside the run, so that an interrupt need not wait for parts that are being started again."""

    def __init__(self, rig: RunningRig, fault: Fault, dice: Random) -> None:
        super().__init__(name="act", daemon=True)
        self._rig, self._fault, self._dice = rig, fault, dice
        self.struck = ""
        self.problem = ""

    def run(self) -> None:
        """Whatever it breaks with is a violation."""
        try:
            self.struck = self._fault.act(self._rig, self._dice)
        except Shown as shown:
            self.problem = f"{shown.invariant}: {shown}"
        except Exception as problem:  # noqa: BLE001 (a fault that breaks must not look like one that struck)
            self.problem = f"I6 recovery: the fault itself broke: {type(problem).__name__}: {problem}"


class _Run:
    """One run from the first image to the checks."""

    def __init__(self, rig: RunningRig, fault: Fault, seed: int, pace: Pace) -> None:
        self._rig, self._fault, self._seed, self._pace = rig, fault, seed, pace
        self._began_s = time.monotonic()
        self._dice = Random(f"{fault.name} {seed}")
        # The rig may have seen this fault and seed before: UIDs are of this run alone.
        self._ledger = Ledger(heads(fault.load, seed, f"{fault.name}-{seed}-{rig.topic_prefix}{time.time_ns()}"))
        self._sightings = Sightings(self._ledger.studies)
        self._violations: list[str] = []

    def outcome(self) -> Outcome:
        """1. Scanners and watch begin. 2. The act. 3. Recovery. 4. Every study ends. 5. The checks."""
        with self._watching() as scanners:
            act = self._struck()
            ended_s = time.monotonic()
            recovered_s = self._recovered(ended_s)
            self._all_sent(scanners, ended_s)
            self._all_ended()
        case = self._case()
        told = counts(case)
        return Outcome(
            fault=self._fault.name,
            seed=self._seed,
            acknowledged=told.acknowledged,
            settled=told.settled,
            lost=told.lost,
            doubled=told.doubled,
            silent_normals=told.silent_normals,
            actions_lost=told.actions_lost,
            recovered_s=recovered_s,
            violations=(*self._violations, *violations(case)),
            struck=act.struck or act.problem.partition("\n")[0],
            studies=len(self._ledger.owed()),
            seconds=round(time.monotonic() - self._began_s, 1),
        )

    @contextmanager
    def _watching(self) -> Iterator[Scanners]:
        """Scanners that send and a watch that looks, until the body has ended."""
        rig = self._rig
        scanners = Scanners(
            self._fault.load,
            Doors(rig.dicom, rig.stow),
            self._ledger,
            self._seed,
            self._sightings.closed,
            INSIST_S,
        )
        watch = Watch(rig.url, self._sightings)
        watch.start()
        scanners.start()
        try:
            yield scanners
        finally:
            scanners.stop()
            watch.stop()

    def _struck(self) -> _Act:
        act = _Act(self._rig, self._fault, self._dice)
        self._rig.pause(self._dice.uniform(*self._pace.moment) * sending_s(self._fault.load))
        act.start()
        act.join(ACT_LIMIT_S)
        if act.is_alive():
            self._violations.append(f"I6 recovery: the fault had not ended after {ACT_LIMIT_S:.0f} s")
        if act.problem:
            self._violations.append(act.problem)
        return act

    def _recovered(self, ended_s: float) -> float | None:
        """Seconds from the fault's end until all that was acknowledged by then is settled and reads are ok."""
        left = {key[0] for key in waiting(self._ledger, {}, ended_s)}
        end_s = ended_s + self._pace.recovery_s
        while time.monotonic() <= end_s:
            left &= {key[0] for key in waiting(self._ledger, self._read(left), ended_s)}
            if not left and self._rig.status() == "ok":
                return round(time.monotonic() - ended_s, 2)
            self._rig.pause(LOOK_S)
        why = f"images of {len(left)} studies wait" if left else f"reads are {self._rig.status()}"
        self._violations.append(f"I6 recovery: not within {self._pace.recovery_s:.0f} s: {why}")
        return None

    def _all_sent(self, scanners: Scanners, ended_s: float) -> None:
        """Who gave up during the outage, or soon after, owes us nothing; who had time enough shows that we are away."""
        limit_s = SENDERS_LIMIT_S + scanners.pauses_s
        if not scanners.finished(limit_s):
            self._violations.append(f"I6 recovery: senders had not finished after {limit_s:.0f} s")
        had_time = ended_s - self._began_s < INSIST_S - 2 * RECOVERY_S
        if had_time and (given_up := self._ledger.given_up):
            self._violations.append(f"I6 recovery: senders gave up {len(given_up)} images after {INSIST_S:.0f} s")

    def _all_ended(self) -> None:
        """Returns when every study has come to its end; one that does not is for the checks."""
        left = set(self._ledger.owed())
        end_s = time.monotonic() + self._pace.ended_s
        while left and time.monotonic() < end_s:
            left &= set(unended(self._ledger, self._read(left)))
            self._rig.pause(LOOK_S if left else 0)

    def _read(self, uids: Collection[str]) -> Answers:
        """Nothing while the worklist is away."""
        try:
            return read_studies(self._rig.url, uids)
        except Away:
            return {}

    def _case(self) -> Case:
        answers, listed = self._final()
        try:
            log = read_log(self._rig.bootstrap, Topics(self._rig.topic_prefix))
        except LogUnread as problem:
            self._violations.append(f"I1 settled once: the log cannot be read: {problem}")
            log = None
        return Case(self._ledger, self._sightings, answers, listed, log)

    def _final(self) -> tuple[Answers, ListTold]:
        """The answers that count. A worklist that gives none for so long is a violation of everything it owes."""
        end_s = time.monotonic() + READ_LIMIT_S
        while True:
            try:
                with connected(self._rig.url) as client:
                    return read_studies(self._rig.url, self._ledger.studies), read_list(client)
            except Away:
                if time.monotonic() > end_s:
                    return dict.fromkeys(self._ledger.studies), ListTold("away", 1, ())
                self._rig.pause(LOOK_S)
