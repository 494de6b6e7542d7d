"""The inference server: ``tritonserver`` from the ``nvidia-pytriton`` wheel, on the CPU, with its Python backend."""

import os
import re
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from importlib import util
from pathlib import Path
from signal import SIGTERM

from launch.stack.part import Part, ProgramMissing, StartFailed, http_ok
from launch.stack.ports import LOOPBACK

PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
STUB = "triton_python_backend_stub"
EXIT_TIMEOUT_S = 5  # what is being inferred may finish
STUB_TIMEOUT_S = 60  # a model imports onnxruntime and loads its graph on a busy machine
SHM_DEFAULT_BYTES = 16 * 1024**2  # 32 images of 512 × 512 FP16 in flight without growing
SHM_GROWTH_BYTES = 4 * 1024**2
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # where Triton keeps it, not a temporary file of ours
_ERROR_LINE = re.compile(r"^E\d{4} |^error: |UNAVAILABLE")


class TritonServer(Part):
    """One Triton server for one model repository, each model with its configuration ``configs/cpu.pbtxt``."""

    name = "triton"
    start_limit_s = 90.0
    stop_limit_s = EXIT_TIMEOUT_S + 10.0
    # Its model processes are its own children: it must have the chance to end them.
    at_parents_death = SIGTERM

    def __init__(self, folder: Path, repository: Path) -> None:
        super().__init__(folder)
        self.repository = repository.resolve()

    @property
    def grpc(self) -> str:
        """``host:port`` of the gRPC endpoint."""
        return self.address("grpc")

    @property
    def http(self) -> str:
        """``host:port`` of the HTTP endpoint: health and metadata."""
        return self.address("http")

    @property
    def metrics(self) -> str:
        """URL of the Prometheus metrics."""
        return f"http://{self.address('metrics')}/metrics"

    def command(self) -> Sequence[str]:
        """See ``tritonserver --help``: each switch is one of its options."""
        options = {
            "model-repository": self.repository,
            "model-control-mode": "none",
            "model-config-name": "cpu",
            "backend-directory": self.folder / "backends",
            "strict-readiness": "true",
            "exit-on-error": "true",
            "exit-timeout-secs": EXIT_TIMEOUT_S,
            "allow-gpu-metrics": "false",
            **self._endpoints(),
        }
        switches = [f"--{name}={value}" for name, value in options.items()]
        return [str(triton_root() / "bin" / "tritonserver"), *switches, *self._python_backend()]

    def _endpoints(self) -> dict[str, str | int]:
        endpoints: dict[str, str | int] = {}
        for name in ("http", "grpc", "metrics"):
            endpoints |= {f"allow-{name}": "true", f"{name}-address": LOOPBACK, f"{name}-port": self.port(name)}
        return endpoints

    def _python_backend(self) -> list[str]:
        settings = {
            "shm-default-byte-size": SHM_DEFAULT_BYTES,
            "shm-growth-byte-size": SHM_GROWTH_BYTES,
            "shm-region-prefix-name": self._shared_memory_prefix,
            "stub-timeout-seconds": STUB_TIMEOUT_S,
        }
        return [f"--backend-config=python,{name}={value}" for name, value in settings.items()]

    @property
    def _shared_memory_prefix(self) -> str:
        return f"lesion-triage-{self.port('grpc')}-"

    def environment(self) -> Mapping[str, str]:
        """The model's Python is ours: the stub finds our packages through the first ``python3`` on PATH."""
        places = {
            "PATH": [str(Path(sys.executable).parent), os.environ.get("PATH", "")],
            "LD_LIBRARY_PATH": [sysconfig.get_config_var("LIBDIR") or "", os.environ.get("LD_LIBRARY_PATH", "")],
        }
        joined = {name: os.pathsep.join(filter(None, folders)) for name, folders in places.items()}
        # No GPU, and no __pycache__ in the model repository.
        return {**os.environ, **joined, "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}

    def prepare(self) -> None:
        """A backend folder of symlinks: the wheel keeps backend and stub apart, the server wants them together."""
        if not self.repository.is_dir():
            raise StartFailed(f"the model repository {self.repository} does not exist (setting model_repository)")
        root = triton_root()
        backend = self.folder / "backends" / "python"
        backend.mkdir(parents=True, exist_ok=True)
        for file in (root / "backends" / "python").iterdir():
            _link(backend / file.name, file)
        _link(backend / STUB, root / "python_backend_stubs" / PYTHON_VERSION / STUB)

    def answers(self) -> bool:
        """Whether every model of the repository is ready (``--strict-readiness``)."""
        return http_ok(f"http://{self.http}/v2/health/ready")

    def telling(self, line: str) -> bool:
        """Its errors: between them it prints tables of its options, a screen wide."""
        return _ERROR_LINE.search(line) is not None

    def tidy(self) -> None:
        """A killed server leaves its shared memory."""
        for region in SHARED_MEMORY.glob(f"{self._shared_memory_prefix}*"):
            region.unlink(missing_ok=True)


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def triton_root() -> Path:
    """Where the wheel keeps the server. Raises ProgramMissing."""
    package = util.find_spec("pytriton")
    for folder in (package.submodule_search_locations or []) if package else []:
        root = Path(folder) / "tritonserver"
        if (root / "bin" / "tritonserver").is_file() and (root / "python_backend_stubs" / PYTHON_VERSION).is_dir():
            return root
    raise ProgramMissing(f"Triton for Python {PYTHON_VERSION} is not installed: pip install 'lesion-triage[local]'")
