"""Asks a running Triton (explicit model control) to take a model's configuration from the repository."""

from __future__ import annotations

import time
from contextlib import suppress

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

_LOOK_S = 0.2
_ASK_S = 10.0


def taken_by(url: str, name: str, version: int | None, within_s: float) -> bool:
    """Loads the model again; whether that version is ready then. ``version`` None: only loads, whatever comes of it."""
    client = InferenceServerClient(url)
    try:
        with suppress(InferenceServerException):
            client.load_model(name, client_timeout=within_s)
            end_s = time.monotonic() + within_s
            while version is not None and time.monotonic() < end_s:
                if client.is_model_ready(name, str(version), client_timeout=_ASK_S):
                    return True
                time.sleep(_LOOK_S)
        return False
    finally:
        client.close()
