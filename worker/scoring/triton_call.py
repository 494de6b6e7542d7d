"""Triton over gRPC: one long-lived client, asynchronous requests, every one of them with a deadline.

tritonclient retries nothing, keeps no connection alive and waits for ever unless told otherwise; it is told here.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from contracts.deadline import Deadline
from contracts.errors import NotAnalysable, PeerAway, PeerBusy, PeerError, PeerRefused, PeerTimeout
from contracts.findings import Label
from contracts.hooks import Happening, Hooks
from contracts.names import Lane
from contracts.reasons import Reason
from contracts.settings import TritonSettings
from contracts.tensors import HU_LOW, ModelSpec
from worker.scoring.breaker import Breaker
from worker.scoring.inference import Request
from worker.scoring.measure import Answer, ServedModel, checked

PEER = "triton"
PRIORITIES: dict[Lane, int] = {Lane.STAT: 1, Lane.ROUTINE: 2}  # Triton: 1 is served first
_KEEPALIVE_MS, _KEEPALIVE_TIMEOUT_MS = 10_000, 5_000  # a peer that vanished without a word is noticed within 15 s
_BACKOFF_S, _BACKOFF_MAX_S = 0.05, 1.0  # between attempts of one request; doubled each time, with full jitter
_GRACE_S = 1.0  # beyond client_timeout, for the callback itself
_ASK_S = 5.0  # longest wait for metadata and configuration
_WITNESS_SIDE = 256  # samples a side of an image that every model must be able to answer: air
_WITNESS_MM = 1.0

# gRPC status → our error. Everything else is the server's own trouble: away.
_STATUS: dict[str, type[PeerError]] = {
    "StatusCode.DEADLINE_EXCEEDED": PeerTimeout,
    "StatusCode.RESOURCE_EXHAUSTED": PeerBusy,
    "StatusCode.INTERNAL": PeerBusy,  # a failed model run: out of memory, a crashed backend, or this image
    "StatusCode.UNKNOWN": PeerBusy,
    "StatusCode.ABORTED": PeerBusy,
    "StatusCode.INVALID_ARGUMENT": PeerRefused,  # not this image, or none: the model is not the contract's
    "StatusCode.OUT_OF_RANGE": PeerRefused,
    "StatusCode.UNAUTHENTICATED": PeerRefused,
    "StatusCode.PERMISSION_DENIED": PeerRefused,
}
_JUDGED = {"StatusCode.INTERNAL", "StatusCode.UNKNOWN", "StatusCode.INVALID_ARGUMENT", "StatusCode.OUT_OF_RANGE"}
_REACHED = {*_JUDGED, "StatusCode.RESOURCE_EXHAUSTED"}  # it is there: no breaker
_BLAMABLE = {*_JUDGED, "StatusCode.DEADLINE_EXCEEDED"}  # perhaps through the image: a witness is asked


class TritonCall:
    """Asks Triton. Safe to use from many threads."""

    def __init__(self, settings: TritonSettings, hooks: Hooks, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._hooks = hooks
        self._clock = clock
        self._lock = threading.Lock()
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_open_s)
        self._models: dict[tuple[str, str], ServedModel] = {}
        self._told: tuple[bool, bool] | None = None
        self._client = triton.InferenceServerClient(
            settings.url,
            keepalive_options=triton.KeepAliveOptions(
                keepalive_time_ms=_KEEPALIVE_MS,
                keepalive_timeout_ms=_KEEPALIVE_TIMEOUT_MS,
                keepalive_permit_without_calls=True,
                http2_max_pings_without_data=0,
            ),
        )

    def infer(self, request: Request, deadline: Deadline) -> Answer:
        """Asks until there is an answer, the repeats are used up, or the deadline has passed.

        Raises NotAnalysable (MODEL_ANSWER_INVALID) for an answer that is none, PeerError for no answer:
        ``blames`` tells then whether the image did it.
        """
        for attempt in range(self._settings.retries + 1):
            try:
                return self.start(request, deadline)()
            except PeerError as problem:
                pause_s = random.uniform(0.0, min(_BACKOFF_MAX_S, _BACKOFF_S * 2**attempt))  # noqa: S311 (jitter)
                if not problem.retriable or attempt == self._settings.retries or deadline.remaining_s() <= pause_s:
                    raise
                self._hooks.happened(
                    Happening.INFERENCE_RETRY, traceparent=request.traceparent, model=request.spec.name
                )
                time.sleep(pause_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def start(self, request: Request, deadline: Deadline) -> Callable[[], Answer]:
        """Sends one attempt and returns the function that waits for its answer; that one raises like ``infer``."""
        self._admit()
        return self._attempt(request, deadline)

    def _attempt(self, request: Request, deadline: Deadline) -> Callable[[], Answer]:
        sent_s, timeout_s = self._clock(), deadline.within(self._settings.request_timeout_s)
        answered: Future[Any] = Future()

        def settle(result: Any, error: Exception | None) -> None:
            if error is None:
                answered.set_result(result)
            else:
                answered.set_exception(error)

        try:
            self._client.async_infer(
                request.spec.name,
                _inputs(request),
                settle,
                priority=PRIORITIES[request.lane],
                client_timeout=max(timeout_s, 1e-3),
            )
        except InferenceServerException as problem:
            answered.set_exception(problem)
        return lambda: self._await(request, answered, sent_s, timeout_s + _GRACE_S)

    def blames(self, request: Request, problem: PeerError) -> bool:
        """After ``infer`` failed: whether another image is answered where this one is not, so the fault is its own.

        A server that is away or full is never the image's fault, so nothing is asked then.
        """
        if problem.detail not in _BLAMABLE:
            return False
        air = np.full((_WITNESS_SIDE, _WITNESS_SIDE), HU_LOW, dtype=np.float16)
        witness = Request(request.spec, air, (_WITNESS_MM, _WITNESS_MM), request.lane)
        try:
            # Past the breaker: images that break the model keep it open, and only the witness can tell.
            self._attempt(witness, Deadline.after(self._settings.request_timeout_s, self._clock))()
        except (PeerError, NotAnalysable):
            return False
        return True

    def up(self) -> bool:
        """Whether the server is ready (with strict readiness: its models too); asks it, and tells PEER_UP."""
        try:
            ready = bool(self._client.is_server_ready(client_timeout=_ASK_S))
        except InferenceServerException:
            ready = False
        self._tell(up=ready)
        return ready

    @property
    def holding_off(self) -> bool:
        """The breaker is open: nothing need be fetched for a server that does not answer."""
        return self._breaker.is_open

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    def _admit(self) -> None:
        with self._lock:
            if not self._breaker.allows(self._clock()):
                raise PeerAway(PEER, "the circuit breaker is open")

    def _await(self, request: Request, answered: "Future[Any]", sent_s: float, timeout_s: float) -> Answer:
        try:
            answer = self._answer_of(request, answered.result(timeout_s))
        except (InferenceServerException, NoAnswer) as problem:
            raise self._failed(problem) from problem
        except NotAnalysable:
            self._answered()
            raise
        self._answered()
        labels = {"model": answer.model.name, "version": answer.model.version}
        seconds = self._clock() - sent_s
        self._hooks.happened(Happening.INFERENCE_SECONDS, seconds, request.traceparent, **labels)
        return answer

    def _answer_of(self, request: Request, result: Any) -> Answer:
        model = self.model(request.spec, result.get_response().model_version)
        tensors = [_without_batch(result.as_numpy(spec.name), spec.name) for spec in request.spec.outputs]
        if not request.spec.labels:
            tensors.insert(0, np.empty(0, np.float32))
        return checked(Answer(tensors[0], tensors[1], model))

    def model(self, spec: ModelSpec, version: str) -> ServedModel:
        """What the server says of a model's version, asked once. Raises PeerError.

        Raises PeerRefused where labels or operating points are not those of the contract: nothing may be scored then.
        """
        known = self._models.get((spec.name, version))
        if known is None:
            told = self._client.get_model_config(spec.name, version, as_json=True, client_timeout=_ASK_S)
            known = served_model(spec, version, told["config"].get("parameters", {}))
            self._models[spec.name, version] = known
        return known

    def _failed(self, problem: Exception) -> PeerError:
        status = problem.status() if isinstance(problem, InferenceServerException) else "no answer"
        if status in _REACHED:
            self._answered()
        else:
            with self._lock:
                self._breaker.failed(self._clock())
            self._tell(up=False)
        return (PeerTimeout if isinstance(problem, NoAnswer) else _STATUS.get(str(status), PeerAway))(PEER, str(status))

    def _answered(self) -> None:
        with self._lock:
            self._breaker.succeeded()
        self._tell(up=True)

    def _tell(self, *, up: bool) -> None:
        state = (up, self._breaker.is_open)
        if self._told != state:
            self._told = state
            self._hooks.happened(Happening.PEER_UP, float(up), peer=PEER)
            self._hooks.happened(Happening.BREAKER_OPEN, float(self._breaker.is_open), peer=PEER)


def served_model(spec: ModelSpec, version: str, parameters: Mapping[str, Any]) -> ServedModel:
    """Reads a model's configuration parameters. Raises PeerRefused where they are not the contract's."""
    try:
        values = {name: str(value["string_value"]) for name, value in parameters.items()}
        words = values["labels"].split(",") if spec.labels else ()
        labels = tuple(Label(word.strip()) for word in words)
        thresholds = {label: float(values[f"threshold.{label}"]) for label in labels}
        pitch_mm = float(values["grid_pitch_mm"])
    except (KeyError, ValueError, TypeError) as problem:
        raise PeerRefused(PEER, f"{spec.name}: its configuration lacks {problem}") from problem
    if labels != spec.labels:
        raise PeerRefused(PEER, f"{spec.name}: its labels are not those of the contract")
    return ServedModel(spec.name, version, labels, thresholds, pitch_mm)


def _inputs(request: Request) -> list[Any]:
    values: tuple[NDArray[Any], ...] = (request.hu[None], np.array([request.spacing_mm], dtype=np.float32))
    inputs = []
    for spec, value in zip(request.spec.inputs, values, strict=True):
        tensor = triton.InferInput(spec.name, list(value.shape), spec.datatype)
        tensor.set_data_from_numpy(np.ascontiguousarray(value))
        inputs.append(tensor)
    return inputs


def _without_batch(values: Any, name: str) -> NDArray[np.float32]:
    if values is None or values.ndim < 2 or values.shape[0] != 1:  # noqa: PLR2004 (batch and one more)
        raise NotAnalysable(Reason.MODEL_ANSWER_INVALID, f"{name} has another shape")
    if values.dtype.kind != "f":
        raise NotAnalysable(Reason.MODEL_ANSWER_INVALID, f"{name} has another type")
    return values[0].astype(np.float32, copy=False)
