"""From a trained network, or somebody else's, to what Triton serves: export, parity, checks, compression, import."""

from pathlib import Path


def triton_backend_text() -> str:
    """The source of the backend, to be copied beside a graph: Triton loads model.py from the version's folder."""
    return (Path(__file__).parent / "triton_backend.py").read_text("utf-8")
