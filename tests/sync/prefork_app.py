"""A WSGI application with a broker for its module. EAGER=3: the parent has a message, with a lease of 3 s."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import minibroker
import minibroker.sync

broker = minibroker.sync.connect(lazy=True, timeout=20)
jobs, other = broker.queue("jobs"), broker.queue("other")
held: list[Any] = []
if os.environ.get("EAGER"):
    jobs.publish("of the parent")
    held += jobs.receive(lease=float(os.environ["EAGER"]))


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with the process, the session, and what came of the call."""
    try:
        said = CALLS[environ["PATH_INFO"]]()
    except minibroker.MinibrokerError as error:
        said = type(error).__name__
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {broker._driver.session.session_id} {said}".encode()]


def publish() -> str:
    """Publish one message."""
    return str(other.publish("of a child").id)


def begin() -> str:
    """Begin a message and keep it: now there are threads that keep its lease."""
    other.publish("to be kept")
    for message in other.receive(wait=10, lease=5):
        held.append(message)
    return "begun"


def steal() -> str:
    """Try to settle what the parent has."""
    held[0].ack()
    return "stolen"


CALLS: dict[str, Callable[[], str]] = {"/publish": publish, "/begin": begin, "/steal": steal}
