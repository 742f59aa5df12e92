"""What a person does to a queue by hand: look, move, cancel, purge, redrive, settings, counters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from minibroker.aio.asking_results import result_of
from minibroker.aio.driver import Driver
from minibroker.aio.joining import join
from minibroker.contract.confirms import MessageId
from minibroker.contract.settings import Settings
from minibroker.session import (
    dead,
    explanation,
    key_wishes,
    pause_wishes,
    rescheduling,
    schema_wishes,
    wishes,
)
from minibroker.session.cancel_wish import cancel_wish
from minibroker.session.dead import ErrorGroup, Redrive, Where
from minibroker.session.declaring import NOTHING, Declaration, Differences
from minibroker.session.explanation import Explanation
from minibroker.session.key_wishes import KeySetting
from minibroker.session.pause_wishes import Pause
from minibroker.session.peek import Peeks
from minibroker.session.queue_times import QueueTimes, read_times, times
from minibroker.session.result_wish import Progress
from minibroker.session.spans import Span


class QueueByHand:
    """The verbs of `Queue` that are no part of publishing and consuming."""

    def __init__(self, driver: Driver, name: str, declaration: Declaration | None) -> None:
        self.name = wishes.check_name(name)
        self._driver = driver
        self._declaration = declaration

    def _made(self, body: Any) -> Any:
        """Return a body as it is published in a step."""
        return body

    async def peek(
        self,
        count: int = 100,
        skip: int = 0,
        *,
        ids: Iterable[MessageId] | None = None,
        state: str = "",
        after: bytes = b"",
        order: str = "",
        unique_key: str | None = None,
        timeout: Span | None = None,
    ) -> Peeks:
        """Return messages as they lie in the queue, in every state or in one; nothing is changed.

        A long answer is cut at about 1 MiB: while its `next` is not empty, ask again with that as `after`. `skip`
        is at most 10,000. `ids`: only these; those that are not in the queue are missing in the answer.
        `order="due"`: the delayed ones, by when they are due. `unique_key`: only the newest that holds it.
        """
        wish = wishes.peek(self.name, count, skip, ids, state, after, order, unique_key)
        if wish is None:
            return Peeks()
        peeked: Peeks = await self._ask(timeout, *wish)
        return peeked

    async def result(
        self,
        id: MessageId,
        *,
        result_type: Any = None,
        on_progress: Callable[[Progress], object] | None = None,
        wait: Span | None = None,
        timeout: Span | None = None,
    ) -> Any:
        """Return what a message came to: at once, or when it has.

        It is kept where the queue says so (its setting `result_ms`), or the worker does; None where the handler
        returned nothing. It may be asked for before and after, and by several.

        Args:
            id: of the message; it was published to this queue, or ended in it.
            result_type: what the result is made into, as the `body_type` of a queue.
            on_progress: called with each `Progress` that the worker tells of.
            wait: for so long; None: until the deadline. 0: what is there now.
            timeout: deadline of this call.

        Raises:
            MessageFailed: it ended without one: dead, cancelled, dropped, ... (`reason` says how).
            UnknownMessage: nothing can come: it ended and nothing is kept of it, or it never was.
            Timeout: it has not come to anything in time.
            BodyError: the result does not fit `result_type`.
        """
        return await result_of(self._driver, self.name, id, result_type, on_progress, wait, timeout)

    async def explain(self, id: MessageId, *, timeout: Span | None = None) -> Explanation:
        """Return why a message is not running, since when, and what would let it go on.

        It is looked for here, in the dead-letter queue, then everywhere; `str()` of the answer is a sentence.
        """
        value = await self._ask(timeout, *explanation.explain(self.name, id))
        return explanation.read(id, value)

    async def reschedule(
        self,
        id: MessageId,
        *,
        delay: Span | None = None,
        at: datetime | None = None,
        timeout: Span | None = None,
    ) -> None:
        """Let a message that waits, ready or delayed, be ready after `delay` from now, or at `at`; 0: at once.

        `peek(order="due")` lists what is delayed. The attempts stay as they are, and a start finds the new time.

        Raises:
            NotWaiting: a worker has it, or it is not there; nothing was changed.
            TypeError: neither or both are given, or `at` has no time zone.
        """
        value = await self._ask(timeout, *rescheduling.reschedule(self.name, id, delay, at))
        rescheduling.check(self.name, id, value)

    async def cancel(
        self,
        ids: Iterable[MessageId] | None = None,
        *,
        key: str | None = None,
        state: str = "",
        client: str = "",
        timeout: Span | None = None,
    ) -> int:
        """Cancel messages, whether they wait or are worked on; return how many. They end, and come to nobody.

        Those with these `ids`; or all that have this `key`, are in this `state`, are with a `client` of this name,
        as far as that is given. A worker that has one is told, and stops (docs/guide/cancel.md). ConnectionLost if
        it is not known how many.
        """
        wish = cancel_wish(self.name, ids, key, state, client)
        if wish is None:
            return 0
        value = await self._ask(timeout, *wish)
        return int(value["cancelled"])

    async def set_key_weight(
        self, key: str, weight: int, *, timeout: Span | None = None
    ) -> KeySetting:
        """Let a key give `weight` messages in its turn, where others give one (docs/guide/keys.md)."""
        wish = key_wishes.weight(self.name, key, weight)
        return key_wishes.read(await self._ask(timeout, *wish))

    async def pause_key(
        self, key: str, for_: Span | None = None, *, timeout: Span | None = None
    ) -> KeySetting:
        """Hand out nothing of a key `for_` so long, or until `resume_key`; what workers have stays theirs."""
        return key_wishes.read(await self._ask(timeout, *key_wishes.pause(self.name, key, for_)))

    async def resume_key(self, key: str, *, timeout: Span | None = None) -> KeySetting:
        """Let a key go on."""
        return key_wishes.read(await self._ask(timeout, *key_wishes.resume(self.name, key)))

    async def keys(self, *, timeout: Span | None = None) -> list[KeySetting]:
        """Return the keys for which something is set, at most 1,000."""
        value = await self._ask(timeout, "keys", {"queue": self.name}, b"")
        return [key_wishes.read(each) for each in value["keys"]]

    async def redrive(
        self,
        ids: Iterable[MessageId] | None = None,
        count: int = 0,
        *,
        where: Where | None = None,
        timeout: Span | None = None,
    ) -> int:
        """Send dead messages of this DLQ (`broker.queue("NAME.dlq")`) back to their origin; return how many.

        Those with these `ids`; or those that `where` is about, `count` of them (0: all), in the order of ids;
        else the `count` oldest (0: all). ConnectionLost if it is not known how many.
        """
        wish = dead.redrive(self.name, ids, count, where)
        if wish is None:
            return 0
        value = await self._ask(timeout, *wish)
        return int(value["redriven"])

    async def start_redrive(
        self,
        ids: Iterable[MessageId] | None = None,
        *,
        where: Where | None = None,
        rate: int = 0,
        canary: int = 0,
        timeout: Span | None = None,
    ) -> Redrive:
        """Let the server send dead messages of this DLQ back by itself, over restarts, too; return how it stands.

        Those with these `ids` (500 at most), or those that `where` is about, or all; `rate` of them a second (0:
        as fast as it goes). First `canary` of them: the others follow when these have ended, and none died again.

        Raises:
            LimitReached: one is under way.
        """
        wish = dead.start_redrive(self.name, ids, where, rate, canary)
        return dead.read_redrive(await self._ask(timeout, *wish))

    async def redrive_state(self, *, timeout: Span | None = None) -> Redrive | None:
        """Return how the redrive that was started stands, or ended within the last day; None: there was none."""
        value = await self._ask(timeout, "redrive_show", {"queue": self.name})
        return dead.read_redrive(value) if value else None

    async def stop_redrive(self, *, timeout: Span | None = None) -> Redrive | None:
        """Let it send no more; return how it stands. What it sent back stays there."""
        value = await self._ask(timeout, "redrive_stop", {"queue": self.name})
        return dead.read_redrive(value) if value else None

    async def error_groups(
        self, *, where: Where | None = None, timeout: Span | None = None
    ) -> list[ErrorGroup]:
        """Return the messages of this DLQ that wait, by what they died of, the largest group first.

        It is asked page by page, each with the deadline of a call; what dies or goes meanwhile may be missing.
        """
        groups = dead.Groups()
        while groups.add(
            await self._ask(timeout, *dead.error_groups(self.name, where, groups.after))
        ):
            pass
        return groups.largest()

    async def purge(
        self, ids: Iterable[MessageId] | None = None, *, timeout: Span | None = None
    ) -> int:
        """End every message of the queue, begun ones too; return how many. With `ids`: those of them that wait."""
        wish = wishes.purge(self.name, ids)
        if wish is None:
            return 0
        value = await self._ask(timeout, *wish)
        return int(value["purged"])

    async def move(
        self,
        target: str,
        ids: Iterable[MessageId] | None = None,
        count: int = 0,
        *,
        timeout: Span | None = None,
    ) -> int:
        """Move messages that wait to the queue `target`; return how many.

        Those with these `ids`, else the `count` oldest (0: all). ConnectionLost if it is not known how many.
        """
        wish = wishes.move(self.name, target, ids, count)
        if wish is None:
            return 0
        value = await self._ask(timeout, *wish)
        return int(value["moved"])

    async def pause(
        self,
        *,
        for_: Span | None = None,
        until: datetime | None = None,
        timeout: Span | None = None,
    ) -> Pause:
        """Hand out nothing of the queue: for so long, until a time, or until `resume`; a restart keeps that.

        Publishes go on. What workers have in hand stays theirs: `held` and `begun` say how much. A queue that is
        paused already has the new end.

        Raises:
            UnknownQueue: there is none.
            TypeError, BadValue: both ends are given, or one that is none.
        """
        wish = pause_wishes.pause_queue(self.name, for_, until)
        return pause_wishes.read(await self._ask(timeout, *wish))

    async def resume(self, *, timeout: Span | None = None) -> bool:
        """Let the queue go on; return whether it was paused."""
        wish = pause_wishes.resume_queue(self.name)
        return bool((await self._ask(timeout, *wish))["resumed"])

    async def delete(self, *, force: bool = False, timeout: Span | None = None) -> int:
        """Delete the queue and its DLQ, with their settings; return how many messages ended.

        Raises:
            QueueInUse: it has consumers, or (without `force`) messages; nothing was deleted.
            UnknownQueue: there is none.
        """
        fields = {"queue": self.name, "force": int(bool(force))}
        value = await self._ask(timeout, "queue_delete", fields)
        return int(value["purged"])

    async def set(self, *, unset: Iterable[str] = (), **settings: int | str) -> Settings:
        """Create the queue or change its settings, those that are named; return all of them.

            await queue.set(max_attempts=3, retry_delay_ms=100)

        Times are in milliseconds here; the deadline is that of the connection. The settings, explained in
        protocol.md, section 7: durability, lease_ms, max_attempts, retry_delay_ms, retry_factor_percent,
        retry_cap_ms, retry_jitter_percent, max_messages.
        Those in `unset` are to be as if nobody had chosen them: policies say them, or they have their defaults.

        Raises:
            BadValue: an unknown setting, or a value outside its range; nothing was changed.
        """
        value = await self._ask(None, *wishes.change(self.name, settings, unset))
        return dict(value["settings"])

    @property
    def differs(self) -> Differences:
        """Which declared settings the queue has otherwise: {name: (declared, has)}, as the server said last.

        Empty while it has not answered; `declared` asks it.
        """
        return NOTHING if self._declaration is None else self._declaration.differs

    async def declared(self, *, timeout: Span | None = None) -> Settings:
        """Return all settings of the queue, which is made if it is not there.

        Raises:
            SettingsDiffer: it was there, with others than `Broker.queue` was given; `error.differs` has both.
        """
        declaration = self._declaration or Declaration(self.name, lambda effect: None)
        return declaration.agreed(await self._ask(timeout, *declaration.wish()))

    async def settings(self, *, timeout: Span | None = None) -> Settings:
        """Return the settings of the queue; UnknownQueue if there is none."""
        value = await self._ask(timeout, "queue_show", {"queue": self.name})
        return dict(value["settings"])

    async def set_schema(self, schema: Any, *, timeout: Span | None = None) -> None:
        """Let the queue take only bodies that fit a JSON Schema, whoever publishes them; None: any again.

            await queue.set_schema({"type": "object", "required": ["to"]})
            await queue.set_schema(Email)  # a dataclass, msgspec.Struct, TypedDict or pydantic model

        The server checks it: what does not fit is refused with `SchemaMismatch`, which says the place. What is in
        the queue stays. docs/guide/schemas.md has what a schema may be.

        Raises:
            TypeError, TooLarge: it is neither a schema nor a type that one can be made of; or of more than 12 KiB.
            BadValue: it is no schema, checking it may have no bound, or the server has not the extra `schema`.
        """
        await self._ask(timeout, *schema_wishes.put(self.name, schema))

    async def schema(self, *, timeout: Span | None = None) -> Any:
        """Return the JSON Schema that bodies of the queue must fit; None: it has none."""
        return schema_wishes.read(await self._ask(timeout, *schema_wishes.show(self.name)))

    async def origins(self, *, timeout: Span | None = None) -> dict[str, str]:
        """Return where the settings of the queue come from that are not the defaults, by their names.

        "chosen" (`set`, or the declaration that holds), "policy NAME" or "limit NAME" (`Broker.policies`).

        Raises:
            UnknownQueue: there is none.
        """
        value = await self._ask(timeout, "queue_show", {"queue": self.name})
        return dict(value.get("origins", {}))

    async def stats(self, *, timeout: Span | None = None) -> dict[str, Any]:
        """Return the counters of the queue: {"queues": {name: counters}}; UnknownQueue if there is none."""
        value: dict[str, Any] = await self._ask(timeout, "stats", {"queue": self.name})
        return value

    async def times(self, *, target: Span = 300, timeout: Span | None = None) -> QueueTimes:
        """Return how long messages wait and run, and how many handlers would do what waits within `target` s."""
        return read_times(await self._ask(timeout, *times(self.name, target)))

    async def join(self, *, timeout: Span | None = None, delayed: bool = False) -> None:
        """Return when all work of the queue is done: no message of it is ready, held or begun.

        It looks at the counters, more rarely while nothing changes; what is published meanwhile counts.

        Args:
            timeout: how long to wait, in seconds; None: for as long as it takes, while the server answers.
            delayed: wait for delayed messages too, those that wait for a retry among them.

        Raises:
            Timeout: it is not done by then; the text says what is left.
        """
        await join(self.name, lambda within_s: self.stats(timeout=within_s), timeout, delayed)

    async def _ask(
        self, timeout: Span | None, op: str, fields: Mapping[str, object], columns: bytes = b""
    ) -> Any:
        within_ms = wishes.timeout_ms(timeout, self._driver.timeout_ms)
        return await self._driver.request(op, fields, within_ms, columns)
