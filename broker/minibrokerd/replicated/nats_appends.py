"""Appends over the connection of nats-py, one at a time, none of which needs a task.

A request of nats-py is written by a task, its answer handed over a queue to another one, and that one wakes
whoever waits. Here an append is written at once, and whoever waits is called while its answer is read.

Only those headers are sent that a replicated stream was tried with for long: the expected last sequence, and the
three of an atomic batch. A body stays well below the limit of a message: one that exceeds it together with its
headers ends the connection, and nats-py never makes it again.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from minibrokerd.replicated.stream import Acked, NoRoom, Outcome, Refused, Unknown
from minibrokerd.replicated.stream_address import StreamAddress

APPEND_S: Final = 2.0  # a leader that lives answers a batch of 24 MiB in 0.2 s
EXPECTED: Final = b"Nats-Expected-Last-Sequence"
BATCH_ID: Final = b"Nats-Batch-Id"
BATCH_SEQUENCE: Final = b"Nats-Batch-Sequence"
BATCH_COMMIT: Final = b"Nats-Batch-Commit"
# That headers begin with, and behind it a status, if it is no message of somebody.
VERSION: Final = b"NATS/1.0"
NO_RESPONDERS: Final = b"503"
END: Final = b"\r\n"
# Codes of errors of JetStream.
WRONG_LAST: Final = 10071
STORE_FAILED: Final = 10077
LAST: Final = re.compile(r"wrong last sequence: (\d+)")
FULL: Final = re.compile("maximum (bytes|messages) exceeded")

Told = Callable[[Outcome], object]


class Appends:
    """The appends over one client; an answer counts for the append that it was asked for, and for no later one."""

    def __init__(
        self, client: Any, address: StreamAddress, inbox: str, why: Callable[[Exception], str]
    ) -> None:
        """`inbox` is subscribed to, with all below it; `why` says what a lack of an answer comes from."""
        self._client = client
        self._why = why
        self._subjects = address.record_subject.encode(), address.epoch_subject.encode()
        self._inbox = f"{inbox}.append".encode()
        self._begun = 0
        self._told: Told | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0  # at the last look: the append is still being sent

    def begin(self, parts: Sequence[bytes], expected: int, told: Told, *, is_epoch: bool) -> None:
        """Send an append; its outcome follows. The client has to be connected."""
        assert self._told is None, "one append at a time"
        self._begun += 1
        reply = b"%b%d" % (self._inbox, self._begun)
        self._client.awaited, self._told = reply, told
        self._timer = asyncio.get_running_loop().call_later(APPEND_S, self._timed_out)
        lines = commands(self._subjects[is_epoch], reply, parts, expected)
        # uvloop raises where a socket ended in this turn; nats-py hears of it in the next one, and then `lost`.
        with suppress(RuntimeError):
            self._client._transport.writelines([*lines])

    def answered(self, data: bytes, headers: bytes | None) -> None:
        """Hear what a server says to the append in flight."""
        if headers and headers[len(VERSION) :].lstrip().startswith(NO_RESPONDERS):
            self._tell(Unknown("the stream has no leader", is_led=False))
        else:
            self._tell(outcome_of(data))

    def lost(self) -> None:
        """Hear that the connection was lost: there will be no answer."""
        if self._told is not None:
            self._tell(Unknown(self._why(ConnectionError("the connection was lost"))))

    def _timed_out(self) -> None:
        before_bytes, self._unsent_bytes = self._unsent_bytes, self._client.unsent_bytes
        if self._unsent_bytes < before_bytes if before_bytes else self._unsent_bytes:
            # On a slow way a large one takes longer, and would be begun again for ever.
            self._timer = asyncio.get_running_loop().call_later(APPEND_S, self._timed_out)
            return
        self._tell(Unknown(self._why(TimeoutError())))

    def _tell(self, outcome: Outcome) -> None:
        told = self._told
        self.forget()
        assert told is not None
        told(outcome)

    def forget(self) -> None:
        """Wait no more for the append in flight, if there is one: what comes for it now is late."""
        self._told, self._client.awaited, self._unsent_bytes = None, b"", 0
        if self._timer is not None:
            self._timer.cancel()


def commands(
    subject: bytes, reply: bytes, parts: Sequence[bytes], expected: int
) -> Iterator[bytes]:
    """Yield what makes a server append these parts behind the entry `expected`, or none of them."""
    batch_id = os.urandom(8).hex().encode() if len(parts) > 1 else b""
    for index, part in enumerate(parts, 1):
        is_last = index == len(parts)
        lines = [VERSION]
        if index == 1:
            lines.append(b"%b: %d" % (EXPECTED, expected))
        if batch_id:
            lines += b"%b: %b" % (BATCH_ID, batch_id), b"%b: %d" % (BATCH_SEQUENCE, index)
            lines += [b"%b: 1" % BATCH_COMMIT] if is_last else []
        head = END.join((*lines, END))
        where = b"%b %b" % (subject, reply) if is_last else subject
        yield b"HPUB %b %d %d\r\n%b" % (where, len(head), len(head) + len(part), head)
        yield part
        yield END


def outcome_of(data: bytes) -> Outcome:
    """Return what an answer of JetStream means."""
    said = json.loads(data) if data else {}
    error = said.get("error")
    if error is None:
        return Acked(said["seq"]) if "seq" in said else Unknown("an empty answer")
    words = error.get("description", str(error))
    wrong = LAST.search(words)
    if error.get("err_code") == WRONG_LAST and wrong is not None:
        return Refused(int(wrong[1]))
    if error.get("err_code") == STORE_FAILED and FULL.search(words):
        return NoRoom(words)
    return Unknown(words)
