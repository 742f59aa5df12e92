"""The order of appends: one is in flight, and the next one is sent when that is stored."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from minibrokerd.replicated.appender import Appender
from minibrokerd.replicated.stream import Acked, Outcome, Unknown


class Line:
    """A fence that notes what is begun; the test answers."""

    def __init__(self) -> None:
        self.position = 0
        self.begun: list[tuple[Sequence[bytes], Callable[[Outcome], object]]] = []
        self.stored: list[tuple[int, Sequence[bytes]]] = []
        self.done: list[int] = []
        self.found_out: list[Coroutine[Any, Any, None]] = []
        me: Any = self
        self.appender = Appender(
            lambda: b"", self.found_out.append, lambda *at: self.stored.append(at), _raise
        )
        self.appender.open(me)

    def begin(self, parts: Sequence[bytes], told: Callable[[Outcome], object]) -> None:
        self.begun.append((parts, told))

    def was_acked(self, outcome: Outcome) -> bool:
        if isinstance(outcome, Acked):
            self.position = outcome.sequence
        return isinstance(outcome, Acked)

    def put(self, *parts: bytes) -> None:
        self.appender.put([*parts], self.done.append)


def _raise(error: BaseException) -> None:
    raise error


def test_the_next_append_waits_until_the_one_before_is_stored() -> None:
    """It expects to stand behind that: sent beside it, it would be refused."""
    line = Line()
    line.put(b"a", b"bc")
    line.put(b"d")
    line.put(b"e")
    assert [parts for parts, _ in line.begun] == [[b"a", b"bc"]]
    assert not line.appender.is_at_rest
    line.begun[0][1](Acked(2))
    assert [parts for parts, _ in line.begun] == [[b"a", b"bc"], [b"d"]]
    line.begun[1][1](Acked(3))
    line.begun[2][1](Acked(4))
    assert line.stored == [(1, [b"a", b"bc"]), (3, [b"d"]), (4, [b"e"])]
    assert line.done == [3, 1, 1]
    assert line.appender.is_at_rest


def test_nothing_is_sent_behind_one_of_which_it_is_not_known() -> None:
    """What became of it is found out first, by a task of its own."""
    line = Line()
    line.put(b"a")
    line.put(b"b")
    line.begun[0][1](Unknown("lost"))
    line.put(b"c")
    assert len(line.begun) == 1
    assert line.stored == []
    [task] = line.found_out
    task.close()
