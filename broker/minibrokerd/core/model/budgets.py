"""What one apply may do: the others of the loop wait for it."""

from __future__ import annotations

from typing import Final

# Items that one apply looks at, whatever the state holds: about 5 ms. What is not done then goes on in the next
# apply (Store.jobs), or in the peer's next page. Tests count them (tests/core/looks.py).
MOST_LOOKS: Final = 10_000


class Budget:
    """Looks and bytes that are left to one apply; it may exceed them by one item."""

    __slots__ = ("bytes_left", "looks_left")

    def __init__(self, most_bytes: int) -> None:
        self.bytes_left = most_bytes
        self.looks_left = MOST_LOOKS

    def is_used_up(self) -> bool:
        """Whether nothing more is to be begun."""
        return self.bytes_left <= 0 or self.looks_left <= 0
