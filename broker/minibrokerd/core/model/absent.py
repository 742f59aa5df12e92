"""Whom a start waits for: the sessions that took messages before it, and what is not handed out without them.

What a client began just before a crash may be in no record, and then it looks as if it waited for anybody. So a
queue that has messages hands none out before all sessions that took from it are back, or `until_ms` is over. Other
queues go on at once. That of all this nothing is asked for a message is seen to by `Store.hands_out`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from minibrokerd.core.model.group import Group

MOST_NAMED: Final = 3  # clients, where a person is told who they are


class Absentee(NamedTuple):
    """One that is not back yet; `groups` wait for it, or all do."""

    client: str
    groups: tuple[Group, ...]
    all: bool = False


class Absent:
    """The sessions that are not back yet."""

    __slots__ = ("_everywhere", "_keeps", "_sessions", "since_ms")

    def __init__(self) -> None:
        self._sessions: dict[int, Absentee] = {}
        self._keeps: dict[Group, dict[int, None]] = {}  # for whom a group waits
        self._everywhere: dict[int, None] = {}  # for whom all do
        self.since_ms = 0  # log time

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, id: int) -> bool:
        return id in self._sessions

    @property
    def keeps_everything(self) -> bool:
        """Whether all groups wait for somebody."""
        return bool(self._everywhere)

    def add(self, id: int, session: Absentee) -> None:
        """Wait for one more."""
        self._sessions[id] = session
        if session.all:
            self._everywhere[id] = None
        for group in session.groups:
            self._keeps.setdefault(group, {})[id] = None

    def lets_go(self, group: Group) -> bool:
        """Whether a group waits for nobody, while others do."""
        return bool(self._sessions) and not self._everywhere and group not in self._keeps

    def names(self, group: Group | None, most: int) -> list[str]:
        """Return the clients that a group waits for, or that anything does, the first few of them."""
        ids: Iterable[int] = self._sessions
        if group is not None:
            ids = {**self._keeps.get(group, {}), **self._everywhere}
        first = [id for id, _ in zip(ids, range(most), strict=False)]
        return [self._sessions[id].client or "a client without a name" for id in first]

    def count(self, group: Group) -> int:
        """Return for how many sessions a group waits."""
        return len(self._keeps.get(group, ())) + len(self._everywhere)

    def back(self, id: int) -> list[Group]:
        """Wait for one session less; return the groups that waited for nobody else."""
        session = self._sessions.pop(id)
        self._everywhere.pop(id, None)
        free = []
        for group in session.groups:
            waits = self._keeps[group]
            del waits[id]
            if not waits:
                del self._keeps[group]
                free.append(group)
        return free

    def clear(self) -> None:
        """Wait for nobody any more."""
        self._sessions.clear()
        self._keeps.clear()
        self._everywhere.clear()
