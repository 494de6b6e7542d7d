"""Real servers for the tests, started when first asked for and stopped at the session's end.

A missing server fails in CI (``CI=true``) and skips elsewhere, with the reason.
"""

import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest

from launch.stack.apache_kafka import ApacheKafka
from launch.stack.part import ProgramMissing
from launch.stack.redis_server import RedisServer, redis_binary, valkey_binary
from launch.stack.tansu import Tansu
from launch.stack.triton_server import TritonServer

# A shell that starts us in the background has SIGINT ignored, and so would every program that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
SERVED_MODEL = "head_ct_lesion"

PartT = TypeVar("PartT", Tansu, ApacheKafka, RedisServer, TritonServer)
Folder = Callable[[str], Path]


def missing(reason: str) -> NoReturn:
    """Fails in CI, skips elsewhere."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"CI must have every server: {reason}")
    pytest.skip(reason)


def running(part: PartT) -> Iterator[PartT]:
    """Yields the started part, stops it afterwards."""
    try:
        part.start()
    except ProgramMissing as error:
        missing(str(error))
    try:
        yield part
    finally:
        part.close()


@pytest.fixture(scope="session")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Makes a folder for a server of that name."""
    return tmp_path_factory.mktemp


@pytest.fixture(scope="session")
def tansu_server(server_folder: Folder) -> Iterator[Tansu]:
    """The embedded broker itself, for tests that only look at it. One that is killed needs its own."""
    yield from running(Tansu(server_folder("tansu")))


@pytest.fixture(scope="session")
def tansu(tansu_server: Tansu) -> str:
    """``host:port`` of a running Tansu."""
    return tansu_server.bootstrap


@pytest.fixture(scope="session")
def kafka_server(server_folder: Folder) -> Iterator[ApacheKafka]:
    """One broker of Apache Kafka itself."""
    yield from running(ApacheKafka(server_folder("kafka")))


@pytest.fixture(scope="session")
def kafka_broker(kafka_server: ApacheKafka) -> str:
    """``host:port`` of a running Apache Kafka (mark the test ``kafka``)."""
    return kafka_server.bootstrap


@pytest.fixture(params=["tansu", pytest.param("kafka_broker", marks=pytest.mark.kafka)], ids=["tansu", "kafka"])
def broker(request: pytest.FixtureRequest) -> str:
    """``host:port`` of each broker in turn."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def topic_prefix() -> str:
    """Keeps a test's topics and groups apart from every other's on a shared broker."""
    return f"t{uuid.uuid4().hex[:12]}."


@pytest.fixture(scope="session")
def redis_server(server_folder: Folder) -> Iterator[RedisServer]:
    """The server the embedded stack would take."""
    yield from running(RedisServer(server_folder("redis")))


@pytest.fixture(scope="session", params=["redis", "valkey"])
def redis_make(request: pytest.FixtureRequest, server_folder: Folder) -> Iterator[RedisServer]:
    """Each make of the store in turn, with the same attributes as ``redis_server``."""
    binary = {"redis": redis_binary, "valkey": valkey_binary}[request.param]()
    if binary is None:
        missing(f"no {request.param} server is installed")
    yield from running(RedisServer(server_folder(request.param), binary))


@pytest.fixture(scope="session")
def triton_of(server_folder: Folder) -> Iterator[Callable[[Path], TritonServer]]:
    """Starts a Triton for a given model repository; one server for each folder, stopped at the end."""
    started: dict[Path, Any] = {}

    def start(repository: Path) -> TritonServer:
        if repository not in started:
            lives = running(TritonServer(server_folder("triton"), repository))
            started[repository] = (next(lives), lives)
        server: TritonServer = started[repository][0]
        return server

    yield start
    for _, lives in started.values():
        next(lives, None)


@pytest.fixture(scope="session")
def triton(triton_of: Callable[[Path], TritonServer]) -> TritonServer:
    """Serves the model that is shipped."""
    repository = ROOT / "triton_models"
    if not (repository / SERVED_MODEL / "configs" / "cpu.pbtxt").is_file():
        missing(f"the model repository holds no {SERVED_MODEL} for the CPU yet")
    return triton_of(repository)


@pytest.fixture(autouse=True)
def _denormals_as_found() -> Iterator[None]:
    """Networks run with denormals flushed, which torch and ONNX Runtime set for the whole thread and leave so."""
    yield
    if {"torch", "onnxruntime"} & set(sys.modules):
        import torch

        torch.set_flush_denormal(False)
