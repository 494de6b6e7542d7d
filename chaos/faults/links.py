"""The network between scanners and us, and between us and our peers."""

from collections.abc import Callable
from random import Random

from chaos.faults.processes import BETWEEN
from chaos.faults.trouble import Begin, Span, Trouble, during, each, repeated
from chaos.scenario import Fault, Link, Rig

FAR_S = 2.0  # the latency
SHORT = Span(1.0, 4.0)  # while connections are reset no image comes through
LONG = Span(6.0, 12.0)
TORN_BYTES = (300, 150_000)  # from amid the association request to amid a large image, or the tenth small one

Spoil = Callable[[Link, Random], str]


def torn(link: Link, dice: Random) -> str:
    """Reset (RST) amid a PDU."""
    size_bytes = dice.randint(*TORN_BYTES)
    link.reset_after(size_bytes)
    return f"reset after {size_bytes} bytes"


def far(link: Link, _: Random) -> str:
    """Every piece two seconds late, both ways."""
    link.delay(FAR_S)
    return f"{FAR_S:.0f} s each way"


def mute(link: Link, _: Random) -> str:
    """The caller is heard and never answered."""
    link.one_way()
    return "one way"


def cut(link: Link, _: Random) -> str:
    """Reset, and refused from then on."""
    link.cut()
    return "cut"


def on_the_way(prefix: str, spoil: Spoil) -> Begin:
    """One or more of the links whose name begins so: callers may see the same peer differently."""

    def begin(rig: Rig, dice: Random) -> Trouble:
        links = sorted(name for name in rig.links if name.startswith(prefix))
        struck = dice.sample(links, dice.randint(1, len(links)))
        told = [f"{name}: {spoil(rig.links[name], dice)}" for name in struck]
        return Trouble("; ".join(told), each(lambda name: rig.links[name].heal(), struck))

    return begin


def scanners(spoil: Spoil) -> Begin:
    """The way to one producer, or to both."""
    return on_the_way("dicom", spoil)


def faults(hold: float) -> tuple[Fault, ...]:
    """The rows for the way to the scanners; those to Redis and Triton are with them."""
    long = LONG.scaled(max(hold, 0.5))
    return (
        Fault(
            "link_reset",
            "half an image is no image; the sender sends it again",
            repeated(during(scanners(torn), SHORT), (2, 4), BETWEEN),
        ),
        Fault("link_slow", "two seconds of latency cost time, not images", during(scanners(far), long)),
        Fault(
            "link_one_way",
            "what was stored and never answered is sent again and settled once",
            during(scanners(mute), long),
        ),
        Fault("link_cut", "scanners that find nobody come again", during(scanners(cut), long)),
    )
