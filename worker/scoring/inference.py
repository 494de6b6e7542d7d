"""What scoring asks of an inference server, whoever answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from contracts.deadline import Deadline
from contracts.errors import PeerError
from contracts.names import Lane
from contracts.tensors import ModelSpec
from worker.scoring.hounsfield import Hounsfield
from worker.scoring.measure import Answer


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One image for one model: ``hu`` (rows, columns), ``spacing_mm`` (row, column), the lane it came by."""

    spec: ModelSpec
    hu: Hounsfield
    spacing_mm: tuple[float, float]
    lane: Lane = Lane.ROUTINE
    traceparent: str = ""


class Inference(Protocol):
    """``triton_call.TritonCall`` is one. Raises NotAnalysable for an invalid answer, PeerError for none."""

    def infer(self, request: Request, deadline: Deadline) -> Answer:
        """Asks, a few times if need be, until there is an answer or the deadline has passed."""

    def start(self, request: Request, deadline: Deadline) -> Callable[[], Answer]:
        """Sends one attempt and returns the function that waits for its answer."""

    def blames(self, request: Request, problem: PeerError) -> bool:
        """After ``infer`` failed: whether another image is answered where this one is not."""
