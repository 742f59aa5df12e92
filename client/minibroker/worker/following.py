"""What follows a failure: known before it is told to the server, so that the line of the log says it.

The worker asks for a queue's settings and draws the delay itself, by the rule of the server.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from minibroker.contract import limits
from minibroker.session.spans import Span, milliseconds


class HandlerTimeout(Exception):
    """A handler ran for longer than its `timeout`; the attempt failed."""


class ProcessDied(Exception):
    """The process of a handler ended before the handler did; the attempt failed."""


class Reject(Exception):
    """Raised by a handler: this message can never succeed; it goes to the dead-letter queue now."""


class Retry(Exception):
    """Raised by a handler: the attempt failed, and the message comes again after `delay` seconds, or a timedelta.

    Without a delay it comes as its queue says. `key_delay`: nothing of its key comes for so long, as after an
    answer "too many requests".

    Raises:
        TypeError, BadValue: it is no delay; the handler fails with that instead.
    """

    def __init__(
        self, text: str = "", *, delay: Span | None = None, key_delay: Span | None = None
    ) -> None:
        super().__init__(text)
        self.delay = _seconds("delay", delay)
        self.key_delay = _seconds("key_delay", key_delay)


def _seconds(name: str, span: Span | None) -> float | None:
    return None if span is None else milliseconds(name, span, limits.MAX_DELAY_MS) / 1000


@dataclass(frozen=True, slots=True)
class Follows:
    """What becomes of a message whose attempt failed.

    `delay_s` until it comes again, None: as the queue says, which is not known here. `dead_letter`: the queue that
    it is moved to instead; empty: it comes again. `is_over`: it was settled, or lost, before the handler failed.
    """

    attempt: int
    max_attempts: int | None
    delay_s: float | None = None
    dead_letter: str = ""
    is_over: bool = False

    def text(self) -> str:
        """Return it in words, as `attempt 2 of 5, again in 2.1 s`."""
        of = "" if self.max_attempts is None else f" of {self.max_attempts}"
        if self.is_over:
            return f"attempt {self.attempt}{of}, settled or lost before"
        if self.dead_letter:
            return f"attempt {self.attempt}{of}, to {self.dead_letter}"
        when = (
            "after the delay of its queue" if self.delay_s is None else f"in {self.delay_s:.1f} s"
        )
        return f"attempt {self.attempt}{of}, again {when}"


def dlq_of(queue: str) -> str:
    """Return the name of the dead-letter queue of a queue; that of a dead-letter queue is itself."""
    return queue if queue.endswith(limits.DLQ_SUFFIX) else queue + limits.DLQ_SUFFIX


def most_attempts(
    queue: str, own: int | None, settings: Mapping[str, int | str] | None
) -> int | None:
    """Return after how many attempts a message is dead: its own number, else that of its queue.

    None: never, as in a dead-letter queue, or nobody knows.
    """
    if queue.endswith(limits.DLQ_SUFFIX):
        return None
    return own or (None if settings is None else int(settings["max_attempts"]))


def follows(
    queue: str,
    attempt: int,
    settings: Mapping[str, int | str] | None,
    delay_s: float | None = None,
    own_max_attempts: int | None = None,
) -> Follows:
    """Return what follows a failed `attempt` (from 1) under these settings; `delay_s`: the handler's own wish."""
    most = most_attempts(queue, own_max_attempts, settings)
    if most is not None and attempt >= most:
        return Follows(attempt, most, dead_letter=dlq_of(queue))
    if delay_s is None and settings is not None:
        delay_s = _delay_s(attempt, settings)
    return Follows(attempt, most, delay_s)


def _delay_s(attempt: int, settings: Mapping[str, int | str]) -> float:
    cap_ms = int(settings["retry_cap_ms"])
    delay_ms = float(int(settings["retry_delay_ms"]))
    factor = int(settings["retry_factor_percent"]) / 100
    for _ in range(attempt - 1):
        if delay_ms >= cap_ms or factor == 1:
            break
        delay_ms *= factor
    jitter = random.uniform(-1, 1) * int(settings["retry_jitter_percent"]) / 100
    return round(min(delay_ms, cap_ms) * (1 + jitter)) / 1000
