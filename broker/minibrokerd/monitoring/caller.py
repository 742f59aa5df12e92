"""Calls a webhook from a thread of its own: one call after another, again and again for a bounded time.

The loop only puts calls into a bounded queue. The thread is a daemon: what it waits for never keeps the process.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from minibrokerd.monitoring.webhook import Call, Webhook, headers_of
from minibrokerd.process.logs import events

if TYPE_CHECKING:
    from http.client import HTTPConnection

GONE: Final = 410  # the receiver wants no more of this


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take, in seconds, and how many calls may wait."""

    attempt_s: float = 5.0
    first_wait_s: float = 1.0
    most_wait_s: float = 60.0
    call_s: float = 900.0
    waiting: int = 100


class Caller:
    """The queue of calls and its thread. `sent`, `failed` (attempts) and `dropped` count since the start."""

    def __init__(self, patience: Patience = Patience()) -> None:
        self.sent = self.failed = self.dropped = 0
        self._patience = patience
        self._webhook: Webhook | None = None
        self._waiting: deque[Call] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ending = False
        self._on_end: Callable[[], object] = lambda: None

    def set(self, webhook: Webhook | None) -> None:
        """Call this one from now on, what waits too; None: none, and what waits is dropped."""
        with self._changed:
            self._webhook = webhook
            if webhook is None:
                self._drop(len(self._waiting), "there is no webhook any more")
            self._changed.notify()

    def put(self, call: Call) -> None:
        """Have a call made. If too many wait, the oldest of them is dropped."""
        with self._changed:
            if self._ending or self._webhook is None:
                return
            if len(self._waiting) >= self._patience.waiting:
                self._drop(1, "too many wait")
            self._waiting.append(call)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="minibroker-webhook", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def end(self, on_end: Callable[[], object]) -> None:
        """Try what waits once more and end; then call `on_end`, in whichever thread."""
        with self._changed:
            self._ending, self._on_end = True, on_end
            self._changed.notify()
        if self._thread is None:
            on_end()

    def give_up(self) -> None:
        """Count what waits as dropped: the process ends."""
        with self._changed:
            self._on_end = lambda: None
            self._drop(len(self._waiting), "the broker stops")

    def _drop(self, count: int, reason: str) -> None:
        for _ in range(count):
            self._waiting.popleft()
        self.dropped += count
        if count:
            events.warning("webhook_dropped", calls=count, reason=reason)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ending)
                if not self._waiting:
                    break
                call = self._waiting[0]  # it stays there, so that whoever counts sees it
            self._make(call)
        with self._changed:
            self._on_end()

    def _make(self, call: Call) -> None:
        patience, began_s, wait_s = self._patience, time.monotonic(), self._patience.first_wait_s
        while True:
            with self._changed:
                webhook = self._webhook
                if webhook is None or not self._is_first(call):
                    return
            trouble, status = self._attempt(webhook, call)
            with self._changed:
                if not self._is_first(call):
                    return  # dropped meanwhile, and counted as that
                if not trouble:
                    self.sent += 1
                    self._waiting.popleft()
                    return
                self.failed += 1
                spent_s = time.monotonic() - began_s
                over = status == GONE or spent_s + wait_s > patience.call_s or self._ending
                events.warning(
                    "webhook_failed", type=call.type, address=webhook.shown, text=trouble
                )
                if over:
                    late = "the broker stops" if self._ending else "it failed for too long"
                    self._drop(1, trouble if status == GONE else late)
                    return
                self._changed.wait_for(
                    lambda: self._is_to_hurry(webhook, call),  # noqa: B023
                    random.uniform(wait_s / 2, wait_s),
                )
                wait_s = min(2 * wait_s, patience.most_wait_s)

    def _is_to_hurry(self, webhook: Webhook, call: Call) -> bool:
        return self._ending or self._webhook is not webhook or not self._is_first(call)

    def _is_first(self, call: Call) -> bool:
        return bool(self._waiting) and self._waiting[0] is call

    def _attempt(self, webhook: Webhook, call: Call) -> tuple[str, int]:
        """Return what went wrong, empty if nothing, and the status of the answer, 0 if none came."""
        # Here, in the thread: it is a twentieth of all that a start would import.
        from http.client import HTTPConnection, HTTPException, HTTPSConnection

        parts = urlsplit(webhook.url)
        assert parts.hostname is not None
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.hostname, parts.port, timeout=self._patience.attempt_s)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        # The time-out of a socket begins anew with each byte; this one does not.
        within_s, began_s = self._patience.attempt_s, time.monotonic()
        late = f"it did not answer within {within_s:g} s"
        cut = threading.Timer(within_s, _cut, (connection,))
        cut.daemon = True
        cut.start()
        try:
            connection.connect()
            # A cut while it was looked up, connected or encrypted has found no socket to cut.
            if time.monotonic() - began_s >= within_s:
                return late, 0
            connection.request(
                "POST", path, call.body, headers_of(call, webhook.key, int(time.time()))
            )
            with connection.getresponse() as response:
                status = response.status
        except (OSError, ValueError, HTTPException) as error:
            return f"{type(error).__name__}: {error}", 0  # ValueError: that is no name of a host
        finally:
            cut.cancel()
            connection.close()
        if time.monotonic() - began_s >= within_s:  # what was cut off may look like a whole answer
            return late, 0
        return ("" if 200 <= status < 300 else f"it answered with {status}"), status


def _cut(connection: HTTPConnection) -> None:
    try:
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has ended by itself
