"""Every span of time that a public verb takes, given as a text: it is named, and so is what is right."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest

import minibroker
import minibroker.sync
import minibroker.worker
from minibroker import MessageId
from minibroker.session.spans import Span
from minibroker.testing import MemoryBroker, SyncMemoryBroker

WRONG = "2 h"
SOON = datetime(2100, 1, 1, tzinfo=UTC)
SPANS = ("Span", "Span | None", "float | timedelta", "float | timedelta | None")
FLAVOURS = {minibroker: MemoryBroker, minibroker.sync: SyncMemoryBroker}


async def handler(message: Any) -> None:
    """Take anything."""


# What verbs need beside it, by the name of the parameter.
GIVEN: dict[str, Any] = {
    "body": b"x", "bodies": [b"x"], "id": MessageId(1, 0), "ids": [MessageId(1, 0)], "key": "k", "weight": 1,
    "name": "n", "queue": "q", "result": 1, "value": 1, "target": "r", "handler": handler, "cron": "0 3 * * *",
    "by": 1, "timezone": "UTC", "exchange": "e", "type": "topic", "to": "q",
    "schema": {}, "group": "g", "start": "first", "pattern": "*", "settings": {},
}  # fmt: skip
MORE: dict[str, dict[str, Any]] = {
    "cancel": {"key": "k"},
    "pause_workers": {"name": "n"},
    "publish": {"dedupe_id": "d"},  # without one nobody looks at the window
    "reschedule": {"at": SOON},
    "then": {"after": [MessageId(1, 0)]},
}
LATER = ("working",)  # looks at it at the end of its block


def spans_of(function: Callable[..., Any]) -> list[str]:
    """Return the names of its parameters that are spans of time."""
    parameters = inspect.signature(function).parameters
    return [name for name, each in parameters.items() if each.annotation in SPANS]


def verbs(*things: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield all that may be called of these objects."""
    for thing in things:
        for name in dir(thing):
            if name[0] != "_" and name not in LATER and callable(getattr(type(thing), name, None)):
                yield f"{type(thing).__name__}.{name}", getattr(thing, name)


def arguments(function: Callable[..., Any], span: str) -> dict[str, Any]:
    """Return what it needs, and this span as a text."""
    parameters = inspect.signature(function).parameters
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = {
        name
        for name, each in parameters.items()
        if each.default is each.empty and each.kind not in variable
    }
    more = {
        name: value for name, value in MORE.get(function.__name__, {}).items() if name in parameters
    }
    made = {name: GIVEN[name] for name in needed - {span}} | more | {span: WRONG}
    if span == "delay":  # instead of a time
        made.pop("at", None)
    return made


async def refusal(function: Callable[..., Any], span: str) -> str:
    """Return the text of the TypeError that it raises for this span; anything else is none."""
    try:
        made = function(**arguments(function, span))
        if inspect.isfunction(made):  # of App.handler
            made(handler)
        elif hasattr(made, "__aenter__") or hasattr(made, "__enter__"):
            made = await made.__aenter__() if hasattr(made, "__aenter__") else made.__enter__()
        elif inspect.isawaitable(made):
            async with asyncio.timeout(10):
                await made
    except TypeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("module", FLAVOURS, ids=lambda module: module.__name__)
async def test_a_span_that_is_a_text_is_told_by_name_and_what_it_must_be(
    module: ModuleType,
) -> None:
    flavour: Any = FLAVOURS[module]
    awaits = module is minibroker
    with flavour() as broker:
        queue = broker.queue("q")
        published = queue.publish(b"x")
        if awaits:
            await published
        received = queue.receive()
        [message] = await received if awaits else received

        def older(older: Span) -> Any:
            return queue.redrive(where=minibroker.Where(older=older))

        def younger(younger: Span) -> Any:
            return queue.redrive(where=minibroker.Where(younger=younger))

        exchange = broker.exchange("e")
        things = [
            broker,
            queue,
            exchange,
            message,
            message.step(),
            broker.schedules,
            minibroker.App("a"),
        ]
        functions = (module.connect, minibroker.worker.Retry, older, younger)
        calls = [*verbs(*things), *((each.__name__, each) for each in functions)]
        asked = [(name, function, span) for name, function in calls for span in spans_of(function)]
        said = {
            f"{name}({span})": (span, await refusal(function, span))
            for name, function, span in asked
        }
    wrong = {
        call: text
        for call, (span, text) in said.items()
        if text
        != f"{span} is '2 h'; it must be seconds or a timedelta, like 7200 or timedelta(hours=2)"
    }
    assert wrong == {}
    assert len(said) > 90
