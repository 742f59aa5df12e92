"""Exclusive queues: which session each belongs to, and the names that the server gives.

An entry of `kept.py` says it, in the batch of the record that makes the queue. How they end is in verbs/owning.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from minibroker.contract.limits import DLQ_SUFFIX, GIVEN_NAMES
from minibrokerd.core.model.kept import EXCLUSIVE
from minibrokerd.core.model.refusals import Refused

if TYPE_CHECKING:
    from minibrokerd.core.model.queues import Queue
    from minibrokerd.core.model.state import Store

NOBODY: Final = 0  # no session has this id: the queue is about to end
# Of a name that the server gives, behind its beginning, as hexadecimal digits.
NAME_BYTES: Final = 16


class Owners:
    """Exclusive queues by their owners."""

    __slots__ = ("_by_session", "secret", "session_of")

    def __init__(self) -> None:
        self.secret = b""  # from outside: who does not know it cannot guess the next name
        self.session_of: dict[int, int] = {}  # by number of the queue; empty: there are none
        self._by_session: dict[int, dict[int, None]] = {}

    def __contains__(self, session: int) -> bool:
        return session in self._by_session

    def sessions(self) -> Iterator[int]:
        """Yield those that own something."""
        return iter(self._by_session)

    def add(self, store: Store, queue: Queue, session: int, client: str) -> None:
        """Let a queue, whose record is in the open batch, belong to a session."""
        store.kept.put(store, EXCLUSIVE, (queue.number,), (session, client.encode()))
        self._add(queue.number, session)

    def opened(self, store: Store) -> None:
        """Take up what stands after a replay."""
        for entry in list(store.kept.of(EXCLUSIVE)):
            number, session = int(entry.key[0]), int(entry.value[0])
            if number in store.by_number:
                self._add(number, session)
            else:
                store.kept.forget(EXCLUSIVE, entry.key)

    def client_of(self, store: Store, queue: Queue) -> str | None:
        """Return the name of the client whose queue, or dead-letter queue, this is; None: it belongs to nobody."""
        if queue.home not in self.session_of:
            return None
        entry = store.kept.find(store, EXCLUSIVE, (queue.home,))
        assert entry is not None
        client = entry.value[1]
        assert isinstance(client, bytes)
        return client.decode()

    def let_go(self, session: int) -> list[int]:
        """Return the numbers of the queues of a session: they belong to nobody from now on, and are to end."""
        numbers = list(self._by_session.pop(session, ()))
        self.session_of.update(dict.fromkeys(numbers, NOBODY))
        return numbers

    def queue_gone(self, store: Store, number: int) -> None:
        """A queue ended, whoever it belonged to."""
        session = self.session_of.pop(number, None)
        if session is None:
            return
        store.kept.end(store, EXCLUSIVE, (number,))
        others = self._by_session.get(session)
        if others is not None:
            others.pop(number, None)
            if not others:
                del self._by_session[session]

    def check(self, store: Store, name: str, session: int) -> None:
        """Check that a session may do what only the owner of a queue may.

        Raises:
            Refused: `exclusive_queue`.
        """
        queue = store.queues.get(name.removesuffix(DLQ_SUFFIX))
        if queue is None:
            return
        owner = self.session_of.get(queue.number, session)
        if owner != session:
            client = self.client_of(store, queue) or "a client without a name"
            raise Refused(
                "exclusive_queue",
                f"{queue.name!r} belongs to the session of {client}, and ends with that; "
                "others may publish to it, and look at it",
            )

    def new_name(self, store: Store) -> str:
        """Return a name that no queue has or had."""
        number = store.next_token().to_bytes(8, "little")
        return GIVEN_NAMES + blake2b(number, key=self.secret, digest_size=NAME_BYTES).hexdigest()

    def _add(self, number: int, session: int) -> None:
        self.session_of[number] = session
        self._by_session.setdefault(session, {})[number] = None
