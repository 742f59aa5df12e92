"""Wrong arguments of every public verb: the argument is named, and nothing is sent."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from fake_server import FakeServer
from steps import consume_one, fill, settle_loop

import minibroker
import minibroker.sync
from minibroker import BadValue
from minibroker.session.address import masked
from minibroker.session.arguments import options_of


class Unprintable:
    """A value whose repr raises."""

    def __repr__(self) -> str:
        raise ValueError


NO_SPAN: tuple[Any, ...] = ("5", b"5", True, [], Decimal(5), Unprintable(), object())
BAD_SPAN: tuple[Any, ...] = (
    -1,
    -0.001,
    math.nan,
    math.inf,
    -math.inf,
    1e300,
    timedelta.max,
    -timedelta(1),
)
NO_COUNT: tuple[Any, ...] = ("5", 5.0, True, None, [], math.nan, Unprintable())
BAD_COUNT: tuple[Any, ...] = (-1, 2**70)
NO_TEXT: tuple[Any, ...] = (5, b"k", True, ["k"], Unprintable())
NO_HEADERS: tuple[Any, ...] = ("h", 5, [], [("a", 1)], True, {1: 2}, {"a": object()})

Verb = Callable[[Any, Any, Any], Any]  # of a broker, its queue and a begun message
VERBS: dict[str, Verb] = {
    "publish": lambda broker, queue, message: lambda **args: queue.publish(b"x", **args),
    "publish_many": lambda broker, queue, message: (
        lambda **args: queue.publish_many([b"x"], **args)
    ),
    "receive": lambda broker, queue, message: queue.receive,
    "consume": lambda broker, queue, message: queue.consume,
    "run": lambda broker, queue, message: lambda **args: queue.run(consume_one, **args),
    "peek": lambda broker, queue, message: queue.peek,
    "redrive": lambda broker, queue, message: queue.redrive,
    "purge": lambda broker, queue, message: queue.purge,
    "move": lambda broker, queue, message: lambda **args: queue.move(**{"target": "r"} | args),
    "set": lambda broker, queue, message: queue.set,
    "queue": lambda broker, queue, message: broker.queue,
    "nack": lambda broker, queue, message: message.nack,
    "reject": lambda broker, queue, message: message.reject,
    "extend": lambda broker, queue, message: message.extend,
    "connect": lambda broker, queue, message: minibroker.connect,
}
PUBLISH = (
    ("delay", NO_SPAN, BAD_SPAN),
    ("timeout", NO_SPAN, BAD_SPAN),
    ("key", NO_TEXT, ("k" * 256, "\udc80")),
    ("headers", NO_HEADERS, ()),
    ("priority", NO_COUNT, (*BAD_COUNT, 10)),
    ("ttl", NO_SPAN, (*BAD_SPAN, 0)),
)
IDS = ("ids", (5, ["1-0"], [5], [("a", "b")], [None]), ([(-1, 0)], [(2**32, 0)], [(1, 2**64)]))
ARGUMENTS: dict[str, tuple[tuple[str, tuple[Any, ...], tuple[Any, ...]], ...]] = {
    "publish": PUBLISH,
    "publish_many": PUBLISH,
    "receive": (
        ("count", NO_COUNT, (*BAD_COUNT, 0, 1_001)),
        ("wait", (*NO_SPAN, None), BAD_SPAN),
        ("lease", NO_SPAN, (*BAD_SPAN, 0, 0.009)),
    ),
    "consume": (
        ("prefetch", NO_COUNT, (*BAD_COUNT, 0, 10_001)),
        ("lease", NO_SPAN, (*BAD_SPAN, 0)),
    ),
    "run": (("concurrency", NO_COUNT, (*BAD_COUNT, 0, 10_001)), ("lease", NO_SPAN, (*BAD_SPAN, 0))),
    "peek": (
        ("count", NO_COUNT, (*BAD_COUNT, 0)),
        ("skip", NO_COUNT, BAD_COUNT),
        ("state", NO_TEXT, ()),
        ("after", ("a", 5), ()),
        IDS,
    ),
    "redrive": (("count", NO_COUNT, BAD_COUNT), IDS),
    "purge": (IDS,),
    "move": (("count", NO_COUNT, BAD_COUNT), ("target", (*NO_TEXT, None), ()), IDS),
    "set": (
        ("max_attempts", (), (*NO_COUNT[:-1], 0, -1)),
        ("durability", (), (5, None, "fast", b"sync")),
        ("lease_ms", (), (9, 30.5)),
    ),
    "queue": (("name", (*NO_TEXT, None), ()),),
    "nack": (("error", (5, b"no", ValueError), ()), ("delay", NO_SPAN, BAD_SPAN)),
    "reject": (("error", (5, b"no", ValueError, None), ()),),
    "extend": (("lease", NO_SPAN, (*BAD_SPAN, 0)),),
    "connect": (
        ("url", (5, b"minibroker://localhost"), ()),
        ("name", (5, b"me"), ()),
        ("timeout", (*NO_SPAN, None), BAD_SPAN),
        ("connect_timeout", (*NO_SPAN, None), BAD_SPAN),
        ("max_run", (*NO_SPAN, None), BAD_SPAN),
        ("on_settle_error", (5, consume_one), ()),
    ),
}


CASES = [
    pytest.param(verb, name, values, error, id=f"{verb}-{name}-{error.__name__}")
    for verb, arguments in ARGUMENTS.items()
    for name, wrong, outside in arguments
    for error, values in ((TypeError, wrong), (BadValue, outside))
    if values
]


async def call(verb: Any, **arguments: Any) -> None:
    """Call a verb, and wait for what it returns if it can be waited for."""
    result = verb(**arguments)
    if inspect.iscoroutine(result):
        await result


@pytest.mark.parametrize(("verb", "name", "values", "error"), CASES)
async def test_a_wrong_argument_is_named_and_nothing_is_sent(
    broker: minibroker.Broker,
    server: FakeServer,
    verb: str,
    name: str,
    values: tuple[Any, ...],
    error: type[Exception],
) -> None:
    fill(server, 1)
    message = await consume_one(broker)
    await settle_loop()
    before = len(server.frames)
    for value in values:
        with pytest.raises(error) as caught:
            await call(VERBS[verb](broker, broker.queue("q"), message), **{name: value})
        if name not in ("key", "headers"):  # these name what is wrong in them
            assert name in str(caught.value)
    await settle_loop()
    assert len(server.frames) == before
    await message.ack()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("minibroker://secret@host", "behind a colon"),
        ("minibroker://:secret@host/vhost", "vhost"),
        ("minibroker://host/vhost", "vhost"),
        ("minibroker://host?timeout=5", "timeout=5"),
        ("minibroker://host?", "option"),
        ("minibroker://host#part", "part"),
        ("minibroker://host:0", "form"),
        ("minibroker://host:65536", "form"),
        ("minibroker://host:x", "form"),
        ("minibroker://[::1", "form"),
        ("minibroker://", "form"),
        ("minibroker://host?ca=a.pem", "TLS"),
        ("minibrokers://:secret@host?verify=no", "verify"),
        ("minibrokers://:secret@host?ca=/no/such/file", "no certificates"),
        ("redis://host", "form"),
        ("localhost:7272", "form"),
        ("minibroker://ho st", "form"),
        ("minibroker://host\n", "form"),
    ],
)
def test_a_wish_in_the_url_that_is_not_granted_is_refused(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        minibroker.sync.connect(url)
    assert "secret" not in str(caught.value)


def test_what_is_for_tls_is_not_taken_without_it() -> None:
    """Whoever names a CA believes that the connection is encrypted."""
    with pytest.raises(ValueError, match="ca is for TLS"):
        minibroker.connect("minibroker://host", ca="ca.pem")


@pytest.mark.parametrize("token", ["t" * 129, "clé", "t" * 5_000])
def test_what_is_no_token_is_refused_before_it_is_sent(token: str) -> None:
    """A long one made the login larger than it may be: refused for ten seconds as a connection that is lost."""
    with pytest.raises(minibroker.BadValue, match="token is none") as caught:
        minibroker.connect("minibroker://host", token=token)
    assert token not in str(caught.value)
    with pytest.raises(minibroker.BadValue):
        options_of(None, None, (1, 1, 1), None, False, {"MINIBROKER_TOKEN": token}, "host")


def test_a_token_is_shown_nowhere() -> None:
    """Not where it is of a wrong type, nor in what a debugger prints."""
    with pytest.raises(TypeError, match="token must be a str") as caught:
        minibroker.connect("minibroker://host", token=b"secret")  # type: ignore[call-overload]
    assert "secret" not in str(caught.value)
    options = minibroker.connect("minibroker://:secret@host")._options
    assert options.token == "secret"
    assert "secret" not in repr(options)
    assert masked("minibroker://:secret@host:1?ca=a@b") == "minibroker://***@b"  # rather too much
    assert masked("minibroker:/:secret@host") == "***@host"


@pytest.mark.parametrize(
    "url",
    [
        "minibroker://host",
        "minibroker://host:7",
        "minibroker://[::1]:7272/",
        "minibroker://127.0.0.1:",
    ],
)
def test_what_is_well_formed_is_taken(url: str) -> None:
    minibroker.connect(url, timeout=0.5, name="worker")
