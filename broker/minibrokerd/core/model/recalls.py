"""What is known of a group in which somebody has nothing to do, and others hold what they have not begun."""

from __future__ import annotations

from minibrokerd.core.model.deliveries import Consumer


class Recall:
    """What is known of a group that is looked at."""

    __slots__ = ("apart", "asked", "below")

    def __init__(self, below: int) -> None:
        self.below = below  # deliveries with smaller tokens were there at the last look
        self.asked: dict[Consumer, int] = {}  # until when they are not asked again
        self.apart: list[Consumer] = []  # gave back: they stand in line again at the next look
