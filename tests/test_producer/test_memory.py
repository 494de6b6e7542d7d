"""What the doors may hold together, and what one address may hold of it. Pure."""

from hypothesis import given
from hypothesis import strategies as st

from producer.memory import Budget


def test_one_address_never_has_so_much_that_others_find_no_room() -> None:
    """Its share is less than all there is, over however many connections it takes it."""
    budget = Budget(100, share=0.75)
    greedy, also_greedy, other = budget.of("a"), budget.of("a"), budget.of("b")
    assert greedy.take(40)
    assert also_greedy.take(35)
    assert not also_greedy.take(1)
    assert other.take(25)
    assert not other.take(1)
    greedy.give(40)
    assert other.take(40)


def test_what_is_ours_knows_no_share() -> None:
    """A watched folder, and what is inflated, may have all that is left."""
    budget = Budget(100, share=0.5)
    assert budget.take(100)
    assert not budget.of("a").take(1)


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(0, 60)), max_size=40))
def test_takes_and_gives_keep_within_the_limit_and_leave_nothing(wanted: list[tuple[str, int]]) -> None:
    """The sum is what was taken; after all was given back nothing is remembered of anybody."""
    budget = Budget(100, share=0.6)
    taken = [(address, size) for address, size in wanted if budget.take(size, address)]
    assert budget.held_bytes == sum(size for _, size in taken) <= 100
    assert all(sum(size for one, size in taken if one == address) <= 60 for address in ("a", "b", "c"))
    for address, size in taken:
        budget.give(size, address)
    assert budget.held_bytes == 0
    assert not budget._held_by
