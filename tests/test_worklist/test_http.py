"""The API as a caller meets it: the real service over a real store."""

import re

import httpx
import pytest
from openapi_spec_validator import validate
from pydantic import SecretStr

from contracts.findings import StudyState, Urgency
from contracts.worklist import NOTICE, Change, PartitionStatus
from tests.test_worklist.conftest import Serve
from tests.test_worklist.view_writer import PATIENT_WORDS, Writer, item

READER, OPS = "reader-token-0123456789", "ops-token-0123456789ab"
ITEM_OF_THE_ISSUE = {
    *("position", "study_instance_uid", "accession_number", "patient", "state", "provisional", "reason"),
    *("reading_state", "urgency", "findings", "images_received", "images_settled", "arrived_at", "due_at", "models"),
}


def test_the_list_is_in_reading_order_with_all_it_promises(serve: Serve, writer: Writer) -> None:
    """The flagged study stands first; every key of ITEM is there; the notice is in body and header."""
    writer.ready()
    writer.put_all([item("1.1", rank=10), item("1.2", rank=1, state=StudyState.FLAGGED, urgency=Urgency.CRITICAL)])
    with serve() as served:
        answer = served.get("/v1/worklist")
    body = answer.json()
    assert answer.status_code == 200
    assert body["status"] == "ok"
    assert [(one["position"], one["study_instance_uid"]) for one in body["items"]] == [(1, "1.2"), (2, "1.1")]
    assert set(body["items"][0]) >= ITEM_OF_THE_ISSUE
    assert set(body["items"][0]["findings"][0]) == {"name", "probability", "volume_ml", "sop_instance_uids"}
    assert body["next"] is None
    assert body["total"] == 2
    assert body["notice"] == answer.headers["x-triage-notice"] == NOTICE
    assert answer.headers["cache-control"] == "no-store"


def test_pages_and_filters_by_their_parameters(serve: Serve, writer: Writer) -> None:
    """`cursor` takes `next`; `state` and `urgency` may be repeated; a page has the default size unless asked."""
    writer.ready()
    states = (StudyState.FLAGGED, StudyState.NOT_FLAGGED, StudyState.NOT_ANALYSED, StudyState.RECEIVING)
    writer.put_all([item(f"1.{n}", rank=n, state=states[n % 4]) for n in range(8)])
    with serve(page_size=3) as served:
        first = served.get("/v1/worklist").json()
        rest = served.get("/v1/worklist", cursor=first["next"], limit=100).json()
        some = served.get("/v1/worklist", state=["flagged", "receiving"], urgency="routine").json()
        none = served.get("/v1/worklist", urgency="critical").json()
    assert [one["study_instance_uid"] for one in first["items"]] == ["1.0", "1.1", "1.2"]
    assert [one["position"] for one in rest["items"]] == [4, 5, 6, 7, 8]
    assert [one["position"] for one in some["items"]] == [1, 4, 5]
    assert none["items"] == []
    assert none["next"] is None


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "cursor=zzz", "state=dead", "urgency=asap", "cursor=" + "A" * 2000]
)
def test_a_wrong_question_is_refused_with_a_sentence(serve: Serve, query: str) -> None:
    """422 in the one shape of problems, with the notice and the name of what was wrong."""
    with serve() as served:
        answer = httpx.get(f"{served.url}/v1/worklist?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(query.partition("=")[0])
    assert answer.json()["notice"] == NOTICE


def test_a_study_is_told_whole_and_an_unknown_one_by_how_sure_we_are(serve: Serve, writer: Writer) -> None:
    """200 with images and history; 404 while all is known; 503, never a confident no, while it is not."""
    writer.ready()
    writer.put(item("1.1", rank=1))
    writer.put(item("1.2", rank=2))
    writer.detail("1.2")
    with serve() as served:
        known = served.get("/v1/studies/1.2")
        unknown = served.get("/v1/studies/9.9")
        writer.partition(1, PartitionStatus.REBUILDING)
        doubtful = served.get("/v1/studies/9.9")
        still = served.get("/v1/studies/1.2")
    assert known.status_code == 200
    assert (known.json()["position"], known.json()["status"]) == (2, "ok")
    assert [(row["sop_instance_uid"], row["settlements"]) for row in known.json()["images"]] == [
        ("1.2.1", 0),
        ("1.2.2", 1),
    ]
    assert set(known.json()["images"][0]) >= {"sop_instance_uid", "digest", "outcome", "reason", "settlements"}
    assert [entry["change"] for entry in known.json()["history"]] == ["received", "flagged"]
    assert unknown.status_code == 404
    assert doubtful.status_code == 503
    assert doubtful.json()["status"] == "rebuilding"
    assert still.status_code == 200
    assert still.json()["status"] == "rebuilding"


def test_tokens_decide_what_is_seen(serve: Serve, writer: Writer) -> None:
    """No token: 401 everywhere. Ops: the queue without patients, in list, study and live events. Reader: all."""
    writer.ready()
    writer.put(item("1.1"))
    secrets = {"reader_token": SecretStr(READER), "ops_token": SecretStr(OPS)}
    with serve(**secrets) as served:
        for path in ("/v1/worklist", "/v1/studies/1.1", "/v1/events", "/v1/studies/9.9"):
            refused = served.get(path, {"Authorization": "Bearer wrong-token-0123456789"})
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert not [word for word in PATIENT_WORDS if word in refused.text]
        for path in ("/v1/worklist", "/v1/studies/1.1"):
            ops = served.get(path, {"Authorization": f"Bearer {OPS}"}).text
            reader = served.get(path, {"Authorization": f"Bearer {READER}"}).text
            assert "1.1" in ops
            assert not [word for word in PATIENT_WORDS if word in ops]
            assert all(word in reader for word in PATIENT_WORDS)
        headers = {"Authorization": f"Bearer {OPS}"}
        with httpx.stream("GET", f"{served.url}/v1/events", headers=headers, timeout=20) as live:
            writer.put(item("1.3"), Change.RECEIVED)
            data = next(line for line in live.iter_lines() if line.startswith("data:"))
    assert "1.3" in data
    assert not [word for word in PATIENT_WORDS if word in data]


def test_without_tokens_a_foreign_name_is_not_answered(serve: Serve, writer: Writer) -> None:
    """A web page whose name was made to point at this machine gets nothing (DNS rebinding)."""
    writer.put(item("1.1"))
    with serve() as served:
        answer = served.get("/v1/worklist", {"Host": "evil.example"})
    assert answer.status_code == 421
    assert not [word for word in PATIENT_WORDS if word in answer.text]
    assert "access-control-allow-origin" not in answer.headers


def test_the_api_describes_itself_without_a_network(serve: Serve) -> None:
    """The OpenAPI document is valid; its page refers to nothing but this service, and all of that is there."""
    with serve() as served:
        schema = served.get("/openapi.json").json()
        page = served.get("/docs")
        parts = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
        found = {part: served.get(part) for part in [*parts, "/openapi.json", "/docs/oauth2-redirect"]}
        root = served.get("/")
    validate(schema)
    assert set(schema["paths"]) == {"/v1/worklist", "/v1/studies/{study_instance_uid}", "/v1/events"}
    assert NOTICE in schema["info"]["description"]
    assert len(parts) >= 3
    assert all(part.startswith("/") and not part.startswith("//") for part in parts)
    assert not re.findall(r"https?://", page.text)
    assert {part: answer.status_code for part, answer in found.items()} == dict.fromkeys(found, 200)
    assert len(found["/static-offline-docs/swagger-ui-bundle.js"].content) > 500_000
    assert root.headers["location"] == "/docs"
    assert "default-src 'self'" in page.headers["content-security-policy"]


def test_only_reading_is_possible(serve: Serve) -> None:
    """No method writes."""
    with serve() as served:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert httpx.request(method, f"{served.url}/v1/worklist").status_code == 405
