"""What a handler in a process asks its worker for while it works: progress, a longer lease, a step.

`GivenStep` is of the process, `answer` of the worker; between them are frames as `child.py` has them, each asking
answered by one, before the answer that the handler itself comes to.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final

import msgspec

from minibroker.aio.message import Message
from minibroker.contract import errors
from minibroker.contract.bodies import decode_body
from minibroker.contract.confirms import Confirm, MessageId, Routed, RoutedRun
from minibroker.contract.errors import MinibrokerError
from minibroker.session import typed
from minibroker.session.spans import in_seconds

ASKED: Final = frozenset({"progress", "extend", "step"})
NAMES: Final = "unique_keys", "dedupe_ids"  # of `publish_many`: any iterables
FINE: Final = {"kind": "fine"}


class GivenStep:
    """A step as a handler in a process has it: what is said in its block is asked for at its end."""

    def __init__(self, given: Any, timeout: Any) -> None:
        self._given = given
        self._timeout = timeout
        self._parts: list[dict[str, Any]] = []
        self._result: dict[str, Any] = {}
        self.confirms: list[Confirm] = []  # of what it published, in the order of the calls
        self.routed: list[Routed] = []  # where what it published to exchanges is, likewise

    def publish(self, queue: str, body: Any, **wishes: Any) -> None:
        """Store a message in a queue, given by its name; the rest is as `minibroker.sync.Queue.publish` has it.

        What cannot be sent is refused here, with a TypeError; all else at the end of the block.
        """
        self._say("publish", queue, [body], wishes)

    def then(self, queue: str, body: Any, **wishes: Any) -> None:
        """Store a message that waits for all that the step publishes before it; see `publish`."""
        self._say("then", queue, [body], wishes)

    def publish_many(self, queue: str, bodies: Iterable[Any], **wishes: Any) -> None:
        """Store many messages with the same headers, key, delay and terms; see `publish`."""
        self._say("publish_many", queue, bodies, wishes)

    def route(self, exchange: str, body: Any, **wishes: Any) -> None:
        """Publish a message to an exchange, given by its name; see `publish`, and `minibroker.sync.Step.route`."""
        self._say("route", exchange, [body], wishes)

    def _say(self, verb: str, queue: str, bodies: Iterable[Any], wishes: dict[str, Any]) -> None:
        if not isinstance(queue, str):
            raise TypeError(
                "a handler in a process names the queue of a publish, and an exchange, by a str"
            )
        made = [list(typed.write_any(body)) for body in bodies]
        named = {name: in_seconds(value) for name, value in wishes.items()}
        if named.get("after") is not None:
            named["after"] = [list(each) for each in named["after"]]
        named |= {name: list(named[name]) for name in NAMES if named.get(name) is not None}
        self._parts.append({"verb": verb, "queue": queue, "bodies": made, "wishes": named})

    def result(self, value: Any, *, kept: Any = None) -> None:
        """Say what the message came to; see `minibroker.sync.Step.result`."""
        self._result = {"result": list(typed.write_any(value)), "kept": in_seconds(kept)}

    def __enter__(self) -> GivenStep:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            said = self._given.ask(
                kind="step", timeout=in_seconds(self._timeout), parts=self._parts, **self._result
            )
            self.confirms = [_confirm(*each) for each in said["confirms"]]
            self.routed = [
                RoutedRun(tuple((name, *id) for name, id in ids.items()), 1, durability).confirm(0)
                for ids, durability in said["routed"]
            ]


async def answer(message: Message[Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked for a message; return the frame that answers it. An error of it is the handler's."""
    try:
        if asked["kind"] == "progress":
            await message.progress(asked["share"], asked["note"])
        elif asked["kind"] == "extend":
            await message.extend(asked["lease"])
        else:
            return FINE | await _step(message, asked)
    except Exception as error:  # noqa: BLE001 - raised again in the process, where the handler may know what to do
        return {"kind": "refused", "error": type(error).__name__, "text": str(error)}
    return FINE


async def _step(message: Message[Any], asked: dict[str, Any]) -> dict[str, Any]:
    async with message.step(timeout=asked["timeout"]) as step:
        for part in asked["parts"]:
            bodies = [decode_body(raw, encoding) for raw, encoding in part["bodies"]]
            wishes = part["wishes"]
            if wishes.get("after") is not None:
                wishes["after"] = [MessageId(*each) for each in wishes["after"]]
            many = part["verb"] == "publish_many"
            getattr(step, part["verb"])(part["queue"], bodies if many else bodies[0], **wishes)
        if "result" in asked:
            step.result(decode_body(*asked["result"]), kept=asked["kept"])
    return {
        "confirms": [msgspec.structs.astuple(each) for each in step.confirms],
        "routed": [(each.ids, each.durability) for each in step.routed],
    }


def _confirm(
    origin: int,
    sequence: int,
    durability: str,
    duplicate: bool,
    replaced: tuple[int, int] | None,
) -> Confirm:
    old = None if replaced is None else MessageId(*replaced)
    return Confirm(origin, sequence, durability, duplicate, old)


def refused(said: dict[str, Any]) -> Exception:
    """Return the error of an answer: of the same class if that is one of this package or built in."""
    name, text = said["error"], said["text"]
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, MinibrokerError):
        return kind(text)
    return {"TypeError": TypeError, "ValueError": ValueError}.get(name, RuntimeError)(text)
