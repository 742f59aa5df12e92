"""The API of why a message is not running: the answer of `explain`, as JSON."""

from __future__ import annotations

from datetime import datetime

from minibroker.session.explanation import Explanation
from minibrokerd.http.requests import Ask
from minibrokerd.http.shapes import Explained


async def explain_message(ask: Ask) -> Explained:
    """Return why a message is not running; it is looked for in the queue of the path first."""
    return _view(await ask.client.queue(ask.queue_name).explain(ask.id()))


async def explain_found(ask: Ask) -> Explained:
    """Likewise, wherever it is."""
    return _view(await ask.client.explain(ask.id()))


def _view(found: Explanation) -> Explained:
    return Explained(
        str(found.id),
        found.queue,
        found.state,
        found.reason,
        _unix_ms(found.since),
        _unix_ms(found.until),
        found.by,
        found.says,
        found.release,
        str(found),
    )


def _unix_ms(time: datetime | None) -> int:
    return 0 if time is None else round(time.timestamp() * 1_000)
