"""Pauses: queues that hand nothing out, and clients that get nothing, until they are resumed or a time comes.

Each is an entry of what is kept (kept.py), so it outlives a restart; it is over at its time by the wall clock. The
queue, or the connection, has a flag beside that: it is what is asked where messages are handed out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from minibroker.contract.versions import APP_VERSION
from minibrokerd.core.model.kept import PAUSE
from minibrokerd.core.model.refusals import Refused
from minibrokerd.core.model.sessions import Session

if TYPE_CHECKING:
    from minibrokerd.core.model.state import Store
    from minibrokerd.core.model.wheel import Timer

QUEUE: Final = 1  # what is paused: a queue, by its number
CLIENT: Final = 3  # clients by their name, or all of them (an empty one)

Key = tuple[int, int, str]  # what, number of the queue, key or name


class Pause(msgspec.Struct, frozen=True):
    """One pause: since when, until when (unix ms; 0: until it is ended), and who did it.

    Of clients: `below` are those whose version is lower; empty: all. What they have in hand goes back at
    `deadline_unix_ms`; 0: it stays theirs.
    """

    key: Key
    since_unix_ms: int
    until_unix_ms: int
    by: str
    below: str = ""
    deadline_unix_ms: int = 0

    def is_of(self, session: Session) -> bool:
        """Whether it is about a client."""
        what, _, name = self.key
        if what != CLIENT or (name and name != session.client):
            return False
        return not self.below or version_of(session.version) < version_of(self.below)


class _Text(msgspec.Struct, frozen=True):
    """What an entry has beside its times; a map, so that more may be added."""

    by: str
    below: str = ""
    deadline_unix_ms: int = 0


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(_Text).decode


def version_of(text: str) -> tuple[int, ...]:
    """Return a checked version as what can be compared: 1.10 is above 1.9, 1.0 is 1, none is below all."""
    numbers = [int(number) for number in text.split(".")] if text else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return (int(bool(text)), *numbers)


def checked_version(text: str) -> str:
    """Return what may be a version, or nothing.

    Raises:
        Refused: `bad_value`, it is none.
    """
    if text and not APP_VERSION.fullmatch(text):
        raise Refused("bad_value", f"{text!r:.80} is no version: numbers with dots, like 1.4.2")
    return text


class Pauses:
    """All pauses, by what is paused."""

    __slots__ = ("_by_key", "drained_unix_ms", "last_batch", "timer")

    def __init__(self) -> None:
        self._by_key: dict[Key, Pause] = {}
        self.last_batch = 0  # has the newest record of any
        self.drained_unix_ms = 0  # deadlines up to here have been kept in this run
        self.timer: Timer | None = None  # looks for those that are over

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Pause]:
        return iter(self._by_key.values())

    def get(self, key: Key) -> Pause | None:
        """Return the pause of something; None: it goes on."""
        return self._by_key.get(key)

    def of(self, session: Session) -> Pause | None:
        """Return a pause that keeps a client from getting anything; None: there is none."""
        return next(self.all_of(session), None)

    def all_of(self, session: Session) -> Iterator[Pause]:
        """Yield the pauses that are about a client: two at most, that of its name and that of all."""
        for name in dict.fromkeys((session.client, "")):
            pause = self._by_key.get((CLIENT, 0, name))
            if pause is not None and pause.is_of(session):
                yield pause

    def put(self, store: Store, pause: Pause) -> None:
        """Let a pause stand, over a restart, too; the flags of what it is about are the caller's."""
        value = pause.since_unix_ms, _pack(_Text(pause.by, pause.below, pause.deadline_unix_ms))
        store.kept.put(store, PAUSE, pause.key, value, pause.until_unix_ms)
        self._by_key[pause.key] = pause
        self.last_batch = store.open_batch

    def end(self, store: Store, key: Key) -> Pause | None:
        """Let a pause stand no more; return it, if there was one."""
        pause = self._by_key.pop(key, None)
        if pause is not None:
            store.kept.end(store, PAUSE, key)
            self.last_batch = store.open_batch
        return pause

    def opened(self, store: Store) -> None:
        """Take up what stands after a replay; ValueError if it cannot be understood."""
        for entry in list(store.kept.of(PAUSE)):
            what, number, _ = key = _key(entry.key)
            if what == QUEUE and number not in store.by_number:
                store.kept.forget(PAUSE, key)  # it was deleted since
                continue
            self._by_key[key] = _read(key, entry.value, entry.expires_unix_ms)
            if what == QUEUE:
                store.by_number[number].group.paused = True

    def next_unix_ms(self, behind_unix_ms: int) -> int | None:
        """Return when the next one is over, or its deadline comes; None: nothing happens by time."""
        ends = [each.until_unix_ms for each in self if each.until_unix_ms]
        ends += [each.deadline_unix_ms for each in self if each.deadline_unix_ms > behind_unix_ms]
        return min(ends, default=None)


def _key(key: tuple[int | str, ...]) -> Key:
    what, number, name = key
    return int(what), int(number), str(name)


def _read(key: Key, value: tuple[Any, ...], until_unix_ms: int) -> Pause:
    since_unix_ms, packed = value
    try:
        text = _unpack(packed)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # the second is none of the first
        raise ValueError(f"the pause of {key} cannot be read: {error}") from error
    return Pause(key, since_unix_ms, until_unix_ms, text.by, text.below, text.deadline_unix_ms)
