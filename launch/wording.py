"""Words for people."""


def counted(number: int, one: str, many: str = "") -> str:
    """``1 study``, ``2 studies``: the plural is with an ``s`` unless it is given."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"
