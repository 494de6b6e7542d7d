"""Watches a run through the worklist's public API: the list about every second, and the live changes.

That the worklist is away, or slow, or marks what it says, is no trouble: it is remembered and asked again.
"""

import json
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import httpx

from chaos.answers import Answers, ListTold, StudyTold
from chaos.sightings import Sightings

PERIOD_S = 1.0
SHARE = 0.2  # of the time at most is spent on reading the list: the machine has other work
PAGE_ITEMS = 1000
ANSWER_S = 10.0
SILENCE_S = 25.0  # a live stream has a comment every 10 s
NOT_FOUND = 404


class Away(Exception):
    """The worklist gave no answer that says anything."""


def read_list(client: httpx.Client) -> ListTold:
    """The whole list. Raises Away."""
    pages: list[dict[str, Any]] = []
    cursor = None
    while not pages or cursor:
        params: dict[str, str | int] = {"limit": PAGE_ITEMS, **({"cursor": cursor} if cursor else {})}
        answer = _get(client, "/v1/worklist", params)
        if not answer.is_success:
            raise Away
        pages.append(answer.json())
        cursor = pages[-1]["next"]
    return ListTold.of(pages)


def read_study(client: httpx.Client, uid: str) -> StudyTold | None:
    """One study; None where the service is certain that there is none. Raises Away."""
    answer = _get(client, f"/v1/studies/{uid}", {})
    if answer.status_code == NOT_FOUND:
        return None
    if not answer.is_success:
        raise Away
    return StudyTold.of(answer.json())


def read_studies(url: str, uids: Collection[str]) -> Answers:
    """Several studies now. Raises Away at the first that gets no answer."""
    with connected(url) as client:
        return {uid: read_study(client, uid) for uid in uids}


def connected(url: str) -> httpx.Client:
    """A client of the worklist at that address."""
    return httpx.Client(base_url=url.rstrip("/"), timeout=ANSWER_S, trust_env=False)


def _get(client: httpx.Client, path: str, params: dict[str, str | int]) -> httpx.Response:
    try:
        return client.get(path, params=params)
    except httpx.HTTPError as problem:
        raise Away from problem


class Watch:
    """Two threads between ``start`` and ``stop``: one reads the list, one listens."""

    def __init__(self, url: str, sightings: Sightings) -> None:
        self.sightings = sightings
        self._url = url
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=part, daemon=True) for part in (self._poll, self._listen)]

    def start(self) -> None:
        """From now on."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Until the reads in hand have come to an end."""
        self._ended.set()
        for thread in self._threads:
            thread.join(ANSWER_S + SILENCE_S)

    def _poll(self) -> None:
        with connected(self._url) as client:
            while not self._ended.is_set():
                began_s = time.monotonic()
                try:
                    self._look(client)
                except Away:
                    self.sightings.away()
                took_s = time.monotonic() - began_s
                self._ended.wait(max(PERIOD_S - took_s, took_s * (1 - SHARE) / SHARE))

    def _look(self, client: httpx.Client) -> None:
        told = read_list(client)
        missing = self.sightings.read(told, time.monotonic())
        if missing and told.pages > 1:  # a study that moved forward between two pages is in neither
            missing &= self.sightings.read(read_list(client), time.monotonic())
        self.sightings.vanished(missing)

    def _listen(self) -> None:
        last_id = ""
        with connected(self._url) as client:
            while not self._ended.is_set():
                try:
                    for event_id, event, data in _events(client, last_id, self._ended.is_set):
                        last_id = event_id or last_id
                        self._told(event_id, event, data)
                except (httpx.HTTPError, ValueError):
                    pass  # away, or cut in the middle of a line: it is connected to again
                self._ended.wait(PERIOD_S)

    def _told(self, event_id: str, event: str, data: str) -> None:
        if event == "reset":
            self.sightings.reset()
        else:
            self.sightings.live(event_id, event, json.loads(data)["study_instance_uid"])


def _events(client: httpx.Client, last_id: str, ended: Callable[[], bool]) -> Iterator[tuple[str, str, str]]:
    """Id, event and data of each server-sent event (WHATWG HTML 9.2.6)."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    fields: dict[str, str] = {}
    with client.stream("GET", "/v1/events", headers=headers, timeout=SILENCE_S) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if ended():
                return
            if line:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
                continue
            if "data" in fields:
                yield fields.get("id", ""), fields.get("event", ""), fields["data"]
            fields = {}
