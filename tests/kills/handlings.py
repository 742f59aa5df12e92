"""What consumers of both clients do with each message under load, by its number, and what they note of it."""

from __future__ import annotations

from random import Random
from typing import Final

from worker_ledger import Ledger

import minibroker
import minibroker.sync

LONGEST_S: Final = 1.0
Message = minibroker.Message[bytes] | minibroker.sync.Message[bytes]


class Handlings:
    """The notes of the handlers of one process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._random = Random()

    def fails(self, message: Message) -> bool:
        """Whether the handler is to fail: every 16th message does so once."""
        return message.sequence % 32 in (5, 21) and message.attempt == 1

    def rests_s(self, message: Message) -> float:
        """Return for how long its handler does nothing: every 64th is begun when the broker dies."""
        return self._random.uniform(0, LONGEST_S) if message.sequence % 64 == 7 else 0.0

    def is_confirmed(self, message: Message) -> bool:
        """Whether the handler waits until it knows that its ack is safe; else who called it acks."""
        return message.sequence % 8 == 3

    def note(self, verb: str, message: Message) -> None:
        """Write a line about a message."""
        id = message.id
        self._ledger.write(verb, id.origin, id.sequence, message.token, message.attempt)

    def lost(self, message: Message, error: Exception) -> None:
        """Note that a settlement was refused, or a lease lost; `connect`."""
        print(message, error, flush=True)
        self.note("lost", message)
