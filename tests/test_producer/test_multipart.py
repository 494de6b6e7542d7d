"""The body of a store request, taken apart however it is cut into pieces."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.reasons import Reason
from contracts.settings import LimitSettings
from producer.memory import Budget
from producer.multipart import Malformed, Part, Parts, TooMany, WrongMediaType, boundary_of

BOUNDARY = b"triage-boundary"


def body(contents: list[bytes], media_type: str = "application/dicom") -> bytes:
    """A multipart/related body."""
    head = b"--" + BOUNDARY + b"\r\nContent-Type: " + media_type.encode() + b"\r\n\r\n"
    return b"".join(head + content + b"\r\n" for content in contents) + b"--" + BOUNDARY + b"--\r\n"


def taken(payload: bytes, sizes: list[int], parts: Parts) -> list[Part]:
    """Fed in pieces of those sizes, then the rest."""
    found = []
    for size in [*sizes, len(payload)]:
        found += parts.feed(payload[:size])
        payload = payload[size:]
    return found


contents = st.lists(st.one_of(st.binary(max_size=200), st.just(b"\r\n--triage-bound"), st.just(b"--")), max_size=6)


@given(contents, st.lists(st.integers(0, 40), max_size=20))
def test_parts_come_out_as_they_went_in_however_the_body_is_cut(contents: list[bytes], sizes: list[int]) -> None:
    """Boundaries and headers may fall across any two pieces."""
    budget = Budget(10_000)
    parts = Parts(BOUNDARY, 1000, budget)
    if contents:
        assert [part.content for part in taken(body(contents), sizes, parts)] == contents
        parts.finish()
        assert budget.held_bytes == sum(map(len, contents))


@given(st.binary(max_size=300))
def test_junk_is_malformed_or_nothing(junk: bytes) -> None:
    """No body makes another exception than the two that have a status."""
    parts = Parts(BOUNDARY, 1000, Budget(10_000))
    try:
        parts.feed(junk)
        parts.finish()
    except (Malformed, WrongMediaType):
        return
    assert b"--" + BOUNDARY in junk


def test_a_part_over_the_cap_is_dropped_and_the_next_is_taken() -> None:
    """One part too large costs only itself, and no memory."""
    budget = Budget(10_000)
    found = Parts(BOUNDARY, 100, budget).feed(body([b"x" * 101, b"small"]))
    assert [(part.content, part.refused) for part in found] == [(b"", Reason.TOO_LARGE), (b"small", None)]
    assert budget.held_bytes == len(b"small")


def test_a_part_over_the_shared_budget_is_dropped() -> None:
    """All doors together hold no more than the budget."""
    budget = Budget(50)
    found = Parts(BOUNDARY, 100, budget).feed(body([b"x" * 60, b"small"]))
    assert [part.refused for part in found] == [Reason.BUFFER_FULL, None]


def test_an_abandoned_body_gives_its_bytes_back() -> None:
    """A client that hangs up in mid-part leaves nothing behind."""
    budget = Budget(1000)
    parts = Parts(BOUNDARY, 1000, budget)
    parts.feed(body([b"x" * 500])[:300])
    assert budget.held_bytes > 0
    parts.abandon()
    assert budget.held_bytes == 0


def test_a_body_without_its_end_is_malformed() -> None:
    """A request cut short is not a shorter request."""
    parts = Parts(BOUNDARY, 1000, Budget(1000))
    parts.feed(body([b"abc"])[:-8])
    with pytest.raises(Malformed):
        parts.finish()


def test_a_part_of_another_type_is_refused() -> None:
    """Metadata and bulk data are not instances."""
    with pytest.raises(WrongMediaType):
        Parts(BOUNDARY, 1000, Budget(1000)).feed(body([b"{}"], "application/dicom+json"))


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/related; type=application/dicom; boundary=x",
        'multipart/related; type="application/dicom"; boundary="x"',
        'Multipart/Related; boundary=x; type="application/dicom"; start="<1>"',
        "multipart/related; boundary=x",
    ],
)
def test_the_boundary_is_found(content_type: str) -> None:
    """However clients write the header."""
    assert boundary_of(content_type) == b"x"


@pytest.mark.parametrize(
    ("content_type", "error"),
    [
        ("", WrongMediaType),
        ("application/dicom", WrongMediaType),
        ("multipart/form-data; boundary=x", WrongMediaType),
        ('multipart/related; type="application/dicom+json"; boundary=x', WrongMediaType),
        ('multipart/related; type="application/dicom+xml"; boundary=x', WrongMediaType),
        ('multipart/related; type="application/dicom"', Malformed),
    ],
)
def test_what_is_no_body_of_instances_is_refused(content_type: str, error: type[Exception]) -> None:
    """415 for another media type, 400 for a missing boundary."""
    with pytest.raises(error):
        boundary_of(content_type)


@pytest.mark.parametrize(
    ("boundary", "written"), [(b"other", b"--mine\r\n"), (b"x" * 300, b"--x\r\n"), (b"b", b"rubbish")]
)
def test_what_is_wrong_with_a_body_is_a_sentence(boundary: bytes, written: bytes) -> None:
    """No name of a class of ours or of a library: the sender must know what to mend."""
    with pytest.raises(Malformed, match="boundary"):
        Parts(boundary, 1000, Budget(1000)).feed(written)


def test_a_large_part_is_in_memory_once() -> None:
    """Its pieces grow into the one buffer that is handed on."""
    size_bytes, piece = 48 * 1024**2, bytes(64 * 1024)
    budget = Budget(2 * size_bytes)
    parts = Parts(BOUNDARY, size_bytes, budget)
    head, tail = body([b""]).split(b"\r\n\r\n", 1)
    tracemalloc.start()
    try:
        parts.feed(head + b"\r\n\r\n")
        for _ in range(size_bytes // len(piece)):
            parts.feed(piece)
        (part,) = parts.feed(tail)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(part.content) == size_bytes
    assert peak < 1.3 * size_bytes


def test_parts_beyond_their_number_are_refused() -> None:
    """Whoever sends without end is stopped at a count."""
    parts = Parts(BOUNDARY, 100, Budget(1000), LimitSettings(stow_parts=3))
    with pytest.raises(TooMany):
        parts.feed(body([b"x"] * 4))


def with_headers(headers: list[bytes]) -> bytes:
    """A body of one part with those headers."""
    return (
        b"--"
        + BOUNDARY
        + b"\r\n"
        + b"".join(line + b"\r\n" for line in headers)
        + b"\r\nx\r\n--"
        + BOUNDARY
        + b"--\r\n"
    )


def test_the_headers_of_a_part_have_a_number_and_a_size() -> None:
    """As many and as long as the settings allow are taken; one more, or one byte more, is malformed."""
    limits = LimitSettings(part_headers=3, part_header_bytes=40)
    longest = b"X: " + b"y" * 37
    assert len(Parts(BOUNDARY, 100, Budget(1000), limits).feed(with_headers([longest] * 3))) == 1
    for headers in ([b"X: y"] * 4, [longest + b"y"]):
        with pytest.raises(Malformed, match="many or long"):
            Parts(BOUNDARY, 100, Budget(1000), limits).feed(with_headers(headers))
