"""Asks a worklist over HTTP."""

from typing import Self

import httpx
from pydantic import ValidationError

from contracts.errors import PeerAway, PeerRefused, SettingsError
from worklist.answers import WorklistAnswer

_PEER = "worklist"
_TIMEOUT_S = 5.0
_SAID_CHARS_MAX = 200  # of what the other side says: it may be anything


class WorklistClient:
    """One connection, kept. ``with WorklistClient(url, token) as client``. ``hint`` ends the sentence of no answer."""

    def __init__(self, url: str, token: str = "", hint: str = "") -> None:
        """Raises SettingsError on what is no http(s) URL."""
        self._hint = hint
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if not url.startswith(("http://", "https://")):
            raise SettingsError(f"{url!r} is not the URL of a worklist, e.g. http://127.0.0.1:8090.")
        try:
            self._client = httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S)
        except (httpx.InvalidURL, ValueError):  # ValueError: a token that no header can carry
            raise SettingsError("the URL or the token of the worklist cannot be used.") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def read(self, limit: int) -> WorklistAnswer:
        """The front of the list. Raises PeerAway, also while the worklist itself has nothing to show; PeerRefused."""
        try:
            answer = self._client.get("/v1/worklist", params={"limit": limit})
        except httpx.HTTPError as problem:
            asked = f"{self._client.base_url} ({type(problem).__name__})"
            raise PeerAway(_PEER, f"no answer from {asked}{self._hint}") from None
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise PeerRefused(_PEER, "it asks for a token: give the right one with --token.")
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise PeerAway(_PEER, _said(answer))
        try:
            return WorklistAnswer.model_validate_json(answer.content)
        except ValidationError:
            raise PeerRefused(_PEER, f"{self._client.base_url} is not a worklist of this version.") from None


def _said(answer: httpx.Response) -> str:
    try:
        said = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        said = f"status {answer.status_code}"
    return str(said)[:_SAID_CHARS_MAX]
