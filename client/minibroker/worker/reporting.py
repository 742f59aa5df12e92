"""What a worker says, and to whom: a `Report`. The command has one that writes lines; a program has its logging.

A success is said for every message, so it is asked for apart (`done` is None where nobody listens); everything
else is an event with a stable name and fields, out of the table `WORKER_EVENTS`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from minibroker.aio.message import Message
from minibroker.session.error_text import describe
from minibroker.shell.tracing import current_ids
from minibroker.worker.following import Follows

logger = logging.getLogger("minibroker.worker")

Done = Callable[[Message[Any], float], object]

WORKER_EVENTS: Final[Mapping[str, str]] = {
    "worker_started": "the worker takes messages; queues, handlers, concurrency, broker",
    "done": "a handler has ended well, after `ms`",
    "failed": "a handler has failed, after `ms`; `follows` says what becomes of its message",
    "rejected": "a message went to its dead-letter queue at once: its body does not fit, or its handler said so",
    "draining": "the worker was asked to stop; it takes nothing new, and waits `deadline_s` for what is `running`",
    "not_finished": "the deadline of the drain is over; what `running` names was cancelled and given back",
    "settings_differ": "a queue has other settings than its handler asks for; those of the server are left",
    "schedules": "the server has the schedules of the app; `deleted`: those of its owner that it has no more",
    "broker_away": "the broker gives no answer; what runs goes on",
    "broker_back": "the broker answers again",
    "settings_unknown": "the settings of a queue could not be asked for; the work goes on",
    "worker_stopped": "the worker is done",
    "worker_failed": "the worker ends with an error of its lifespan, or of a handler that ends processes",
    "left_at_once": "the worker ends although something goes on: what cannot be stopped, or `threads` of the app",
    "worker_ended": "one of several workers has ended by itself (`how`), and is started again after `again_in_s`; "
    "without that: it was the last one of a stop",
    "restarting": "the workers are replaced, one after the other",
    "reloading": "files have changed; the workers are replaced",
    "workers_stopping": "all workers were asked to stop; for `deadline_s` they may finish what they run",
    "workers_stopped": "all workers are done; `code` is the gravest of theirs",
    "health": "where the health of the workers is asked",
    "health_failed": "the health file cannot be written, or the port is taken; the work goes on",
}


class Report(Protocol):
    """Takes what a worker says."""

    done: Done | None  # called with a message and the seconds it took; None: nobody wants to know

    def failed(
        self, message: Message[Any], seconds: float, error: BaseException, what: Follows
    ) -> None:
        """A handler failed; what follows."""
        ...

    def event(self, name: str, level: int = logging.INFO, **fields: Any) -> None:
        """Something of `WORKER_EVENTS` happened; `level` is one of logging."""
        ...


class LogReport:
    """Says it to the logger `minibroker.worker`, with the fields as attributes of the record."""

    def __init__(self) -> None:
        self.done: Done | None = self._done if logger.isEnabledFor(logging.INFO) else None

    def _done(self, message: Message[Any], seconds: float) -> None:
        fields = {**about(message), "ms": round(seconds * 1000, 1), **current_ids()}
        logger.info(
            "done %s of %s in %.1f ms", fields["id"], message.queue, seconds * 1000, extra=fields
        )

    def failed(
        self, message: Message[Any], seconds: float, error: BaseException, what: Follows
    ) -> None:
        """A handler failed; Report."""
        kind, text = described(error)
        fields = {**about(message), "ms": round(seconds * 1000, 1), "follows": what.text()}
        fields |= current_ids()
        logger.warning(
            "failed %s of %s after %.1f ms: %s: %s; %s",
            fields["id"], message.queue, seconds * 1000, kind, text, what.text(), extra=fields,
        )  # fmt: skip

    def event(self, name: str, level: int = logging.INFO, **fields: Any) -> None:
        """Something happened; Report."""
        words = " ".join(f"{field}={value}" for field, value in fields.items())
        logger.log(level, "%s %s", name, words, extra=fields)


def about(message: Message[Any]) -> dict[str, Any]:
    """Return the fields that name a message in every line."""
    return {"queue": message.queue, "id": str(message.id), "attempt": message.attempt}


def described(error: BaseException) -> tuple[str, str]:
    """Return class and text of an error, bounded, whatever its code does."""
    kind, text = describe(error)
    return kind.decode(), text.decode()
