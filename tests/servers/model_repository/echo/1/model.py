"""A model for tests of the server itself: it doubles what it is given."""

from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One input, one output, no weights."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Each response is twice its request."""
        return [pb_utils.InferenceResponse([self._doubled(request)]) for request in requests]

    def _doubled(self, request: Any) -> Any:
        values = pb_utils.get_input_tensor_by_name(request, "VALUES").as_numpy()
        return pb_utils.Tensor("DOUBLED", values * 2)
