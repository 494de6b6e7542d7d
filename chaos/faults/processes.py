"""Our services and their peers die, freeze, come and go."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from random import Random

from chaos.faults.signals_call import freeze, thaw
from chaos.faults.trouble import ABSENCE, BLINK, Begin, Choose, Shown, Span, Trouble, back, during, names, repeated
from chaos.scenario import Fault, Load, Rig
from launch.stack.part import Part
from launch.stack.service import ServicePart

CHURN_S = 5.0  # a member stays that long; the next one needs as long to start
BETWEEN = Span(1.0, 3.0)
RESTARTS = 10  # of all workers: five seeds make the fifty of the promise
WHILE_THEY_RESTART = Load(studies=100, rate=8.0)  # two minutes


def one_producer(rig: Rig, dice: Random) -> Sequence[Part]:
    """Any."""
    return [dice.choice(rig.producers)]


def one_worker(rig: Rig, dice: Random) -> Sequence[Part]:
    """Any."""
    return [dice.choice(rig.workers)]


def all_workers(rig: Rig, _: Random) -> Sequence[Part]:
    """Nobody scores and nobody flags."""
    return rig.workers


def the_worklist(rig: Rig, _: Random) -> Sequence[Part]:
    """There is one."""
    return [rig.worklist]


def every_service(rig: Rig, _: Random) -> Sequence[Part]:
    """All that is ours."""
    return [*rig.producers, *rig.workers, rig.worklist]


def everything(rig: Rig, dice: Random) -> Sequence[Part]:
    """Ours and what we stand on."""
    return [*rig.brokers, rig.redis, rig.triton, *every_service(rig, dice)]


def killed(choose: Choose) -> Begin:
    """Kill -9, all victims at once."""

    def begin(rig: Rig, dice: Random) -> Trouble:
        victims = choose(rig, dice)
        for part in victims:
            part.strike()
        for part in victims:
            part.kill()
        return Trouble(f"kill -9 of {names(victims)}", lambda: _up(rig, victims))

    return begin


def _up(rig: Rig, victims: Sequence[Part]) -> None:
    """Peers first: a service answers when it sees them."""
    peers = [part for part in victims if part in (*rig.brokers, rig.redis, rig.triton)]
    back(peers)
    back([part for part in victims if part not in peers])


def frozen(choose: Choose) -> Begin:
    """SIGSTOP; whoever comes back does not know how long it was away."""

    def begin(rig: Rig, dice: Random) -> Trouble:
        victims = choose(rig, dice)
        freeze(victims)
        return Trouble(f"SIGSTOP of {names(victims)}", lambda: thaw(victims))

    return begin


def rolling(choose: Choose, times: int = 1) -> Callable[[Rig, Random], str]:
    """SIGTERM, end, start, one after the other, and all of it ``times`` times without a break.

    Raises Shown when one does not end by itself, in time, with 0.
    """

    def act(rig: Rig, dice: Random) -> str:
        victims = choose(rig, dice)
        order = [part for _ in range(times) for part in dice.sample(victims, len(victims))]
        problems = [problem for part in order if (problem := _restarted(rig, part))]
        if problems:
            raise Shown("; ".join(problems))
        often = f", {times} times" if times > 1 else ""
        return f"SIGTERM and restart of {names(order[: len(victims)])}, one after the other{often}"

    return act


def _restarted(rig: Rig, part: Part) -> str:
    """What was wrong with its end."""
    part.ask_to_stop()
    part.wait_until_stopped(part.stop_limit_s)
    ending = "" if part.status == 0 else f"{part.folder.name} ended with {part.ending} after SIGTERM"
    rig.revive(part)
    return ending


def churn(rig: Rig, dice: Random) -> str:
    """More workers join and leave, now with a word, now without: one joins or leaves about every five seconds."""
    endings = [dice.choice(("SIGTERM", "SIGKILL")) for _ in range(dice.randint(3, 4))]
    with ExitStack() as closing:
        extras = [rig.extra_worker() for _ in endings]
        for extra in extras:
            closing.callback(extra.close)
        for extra, ending in zip(extras, endings, strict=True):
            extra.start()
            rig.pause(CHURN_S)
            _leave(extra, ending)
    return f"{len(endings)} workers joined and left after {CHURN_S:.0f} s: {', '.join(endings)}"


def _leave(extra: ServicePart, ending: str) -> None:
    """Raises Shown when it does not drain."""
    if ending == "SIGKILL":
        extra.kill()
        return
    extra.ask_to_stop()
    extra.wait_until_stopped(extra.stop_limit_s)
    if extra.status != 0:
        raise Shown(f"{names([extra])} ended with {extra.ending} after SIGTERM")


def faults(hold: float) -> tuple[Fault, ...]:
    """The rows; ``hold`` scales what has no timeout to outlast."""
    blink, long = BLINK.scaled(hold), Load(studies=36)
    return (
        Fault(
            "kill_producer",
            "Success means durable, whoever answered it",
            repeated(during(killed(one_producer), blink), (1, 3), BETWEEN),
        ),
        Fault("kill_worker", "what it had not settled is scored again", during(killed(one_worker), blink, ABSENCE)),
        Fault("kill_workers", "all of scoring and flagging gone at once", during(killed(all_workers), blink)),
        Fault("kill_worklist", "it holds nothing", during(killed(the_worklist), blink)),
        Fault("kill_services", "a power cut of all that is ours", during(killed(every_service), blink)),
        Fault("kill_everything", "a power cut of brokers, Redis and Triton too", during(killed(everything), blink)),
        Fault(
            "zombie_worker",
            "a worker that returns after its partitions moved changes nothing",
            during(frozen(one_worker), ABSENCE),
        ),
        Fault(
            "zombie_producer",
            "a door that freezes amid an image acknowledges nothing it lost",
            during(frozen(one_producer), ABSENCE),
        ),
        Fault("membership_churn", "rebalances without end settle every image once", churn, long),
        Fault("rolling_restart_workers", "what is in flight is finished or handed back", rolling(all_workers), long),
        Fault("rolling_restart_all", "a new release goes in while scanners send", rolling(every_service), long),
        Fault(
            "rolling_restarts",
            "restarts without a break: membership never settles",
            rolling(all_workers, max(1, round(RESTARTS * hold))),
            WHILE_THEY_RESTART,
        ),
    )
