"""Turns without a loop: coroutines that are stepped by hand, a tick of the stream before each step."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar

from sim_stream import SimStream

T = TypeVar("T")


@coroutine
def turn() -> Generator[None, None, None]:
    """Let others have a turn."""
    yield


def run(stream: SimStream, work: Coroutine[Any, Any, T], most: int = 1_000) -> T:
    """Step one coroutine to its end; return what it returns."""
    for _ in range(most):
        try:
            work.send(None)
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]
        stream.tick()
    raise AssertionError("it does not end")
