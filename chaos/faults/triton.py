"""The inference server is away, or answers what cannot be."""

from random import Random

from chaos.faults.links import cut, far, mute, on_the_way
from chaos.faults.processes import frozen, killed
from chaos.faults.trouble import BLINK, Begin, Span, Trouble, during
from chaos.scenario import Fault, Load, Mood, Rig
from launch.stack.part import Part

LONG = Span(5.0, 14.0)  # around triton.request_timeout_s (10 s)
MOMENT = Span(2.0, 5.0)  # wrong answers to a part of the images, right ones to the others


def the_triton(rig: Rig, _: Random) -> list[Part]:
    """There is one."""
    return [rig.triton]


def mood(how: Mood) -> Begin:
    """The model answers like that."""

    def begin(rig: Rig, _: Random) -> Trouble:
        rig.model(how)
        return Trouble(f"the model is {how}", lambda: rig.model(Mood.SOUND))

    return begin


def unknown_model(rig: Rig, _: Random) -> Trouble:
    """Triton is up, and has never heard of the model."""
    rig.serve(model=False)
    return Trouble("Triton without the model", lambda: rig.serve(model=True))


def faults(hold: float) -> tuple[Fault, ...]:
    """The rows."""
    long = LONG.scaled(max(hold, 0.5))
    return (
        Fault("kill_triton", "records stay unsettled until it is back", during(killed(the_triton), BLINK, long)),
        Fault("triton_frozen", "a peer that hangs is a peer that is away", during(frozen(the_triton), long)),
        Fault("triton_hangs", "an answer that never comes fails no image", during(mood(Mood.HANG), long)),
        Fault("triton_nan", "no number is no evidence: not analysed, never normal", during(mood(Mood.NAN), MOMENT)),
        Fault("triton_wrong_shape", "as above", during(mood(Mood.WRONG_SHAPE), MOMENT)),
        Fault("triton_unknown_model", "a model that is not loaded is a peer that is away", during(unknown_model, long)),
        Fault("triton_link_cut", "every request in flight is lost", during(on_the_way("triton", cut), long)),
        Fault("triton_link_slow", "two seconds each way", during(on_the_way("triton", far), long), Load(studies=16)),
        Fault("triton_link_one_way", "scored, and nobody heard it", during(on_the_way("triton", mute), long)),
    )
