"""Who waits and who is inside: pure, so every crowd can be made."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.places import Places, Seats

SEATS = Seats(waiting=3, busy=4, per_address=3, per_title=2)


def test_the_oldest_of_the_busiest_address_gives_way() -> None:
    """Not the newcomer, and not whoever came alone, however long ago."""
    places = Places(SEATS)
    assert places.enter("alone", "a", 0.0) == []
    assert places.enter("first", "b", 1.0) == []
    assert places.enter("second", "b", 2.0) == []
    assert places.enter("third", "b", 3.0) == ["first"]
    assert places.waiting() == ["alone", "second", "third"]


def test_who_gave_way_is_not_let_in() -> None:
    """It asked too late."""
    places = Places(Seats(waiting=1, busy=4, per_address=3, per_title=2))
    places.enter("late", "a", 0.0)
    assert places.enter("new", "a", 1.0) == ["late"]
    assert not places.take("late")
    assert places.take("new")


@pytest.mark.parametrize(
    ("inside", "asking", "welcome"),
    [
        ([("a", "x")], ("a", "x"), True),
        ([("a", "x")] * 2, ("a", "x"), False),
        ([("a", "x")] * 2, ("a", "y"), True),
        ([("a", "x"), ("a", "y"), ("a", "z")], ("a", "w"), False),
        ([("a", "x"), ("a", "y"), ("a", "z")], ("b", "x"), True),
        ([("a", "x"), ("a", "y"), ("b", "z"), ("c", "z")], ("d", "w"), False),
    ],
)
def test_busy_places_are_counted_by_address_and_title(
    inside: list[tuple[str, str]], asking: tuple[str, str], *, welcome: bool
) -> None:
    """A table: who is inside, who asks, whether there is room."""
    places = Places(SEATS)
    for number, (address, title) in enumerate([*inside, asking]):
        places.enter(number, address, float(number))
        assert places.take(number, title) is (welcome if number == len(inside) else True)


def test_two_greedy_addresses_leave_room_for_a_third() -> None:
    """Each of four takes what it gets, one after the other: 48 of 64 for the first, and for each a seat at least."""
    places = Places(Seats(waiting=64, busy=64, per_address=48, per_title=64))

    def let_in(address: str) -> int:
        taken = 0
        for number in range(64):
            places.enter((address, number), address, 0.0)
            taken += places.take((address, number))
        return taken

    assert [let_in(address) for address in "abcd"] == [48, 12, 3, 1]


def test_who_rests_waits_again_and_goes_on_without_asking() -> None:
    """A body that paused was let in already."""
    places = Places(Seats(waiting=2, busy=1, per_address=1, per_title=1))
    places.enter("body", "a", 0.0)
    assert places.take("body")
    places.rest("body", 1.0)
    places.enter("other", "a", 2.0)
    assert places.take("other")
    places.resume("body")
    assert places.busy == 2
    places.leave("body")
    places.leave("body")
    assert places.busy == 1


@given(
    st.lists(st.tuples(st.sampled_from(["enter", "take", "rest", "leave"]), st.integers(0, 9), st.sampled_from("ab")))
)
def test_no_order_of_events_breaks_a_limit(steps: list[tuple[str, int, str]]) -> None:
    """Waiting and busy never go over their seats, whatever comes."""
    places = Places(SEATS)
    for number, (step, key, address) in enumerate(steps):
        if step == "enter":
            places.enter(key, address, float(number))
        elif step == "take":
            places.take(key, address)
        elif step == "leave":
            places.leave(key)
        assert len(places.waiting()) <= SEATS.waiting
        assert places.busy <= SEATS.busy
