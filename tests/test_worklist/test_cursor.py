"""The place where a page ended."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import DecodeError
from worklist.cursor import Cursor

RANKS = st.floats(allow_nan=False, allow_infinity=False).map(repr)
UIDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=70)


@given(RANKS, UIDS)
def test_a_cursor_comes_back_as_it_went(rank: str, uid: str) -> None:
    """Encoding and decoding is the identity, and the text needs no quoting in a URL."""
    text = Cursor(rank, uid).encode()
    assert Cursor.decode(text) == Cursor(rank, uid)
    assert set(text) <= set(string.ascii_letters + string.digits + "-_")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "????",
        "é",
        "WyI1IiwiMS4yLjQiXQ=",  # padded by somebody
        "WzUsIjEuMi40Il0",  # [5,"1.2.4"]
        "WyJuYW4iLCIxIl0",  # ["nan","1"]
        "WyJpbmYiLCIxIl0",  # ["inf","1"]
        "WyI1IiwxXQ",  # ["5",1]
        "WyI1IiwiIl0",  # ["5",""]
        "eyI1IjoxLCI2IjoyfQ",  # an object of two keys
        "bnVsbA",
        "W1tbW1tbW1tb" * 2000,
    ],
)
def test_what_we_did_not_give_is_refused(text: str) -> None:
    """Anything else is a DecodeError, never another exception and never another place."""
    with pytest.raises(DecodeError):
        Cursor.decode(text)


@given(st.text(max_size=60))
def test_no_text_breaks_the_decoder(text: str) -> None:
    """Arbitrary text either is a cursor or a DecodeError."""
    try:
        cursor = Cursor.decode(text)
    except DecodeError:
        return
    assert Cursor.decode(cursor.encode()) == cursor
