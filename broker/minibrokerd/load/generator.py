"""One bench from its queue to its figures: connect, start, watch, drain, and leave nothing behind.

The commands go over a connection that carries no load. So it tells whether the server is still there, deletes the
queue in the end whatever happened, and closes at once even when everything else waits for a dead server.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable
from time import perf_counter_ns
from typing import Any, Final

import minibroker
from minibrokerd.load.consumers import Consumer
from minibrokerd.load.ledger import Ledger
from minibrokerd.load.meter import Meter
from minibrokerd.load.pacer import Pacer
from minibrokerd.load.payload import payload_of
from minibrokerd.load.plan import Plan, Schedule
from minibrokerd.load.producers import Producer

LOOK_S: Final = 1.0  # between two looks at the server
STALL_S: Final = 60.0  # two leases: what did not come until then never will
LEAVE_S: Final = 0.5  # for each step of an end in trouble
DELETE_S: Final = 5.0
STATES: Final = ("ready", "delayed", "held", "begun")

Task = asyncio.Future[Any]


class Unusable(Exception):
    """The queue is not one that a bench may use; nothing was changed."""


class Generator:
    """Runs one plan against one server. `control` is a connection that the generator leaves open.

    `patience_s` bounds each call: when the server is away for longer, the bench ends. `on_look` is called
    once a second while it runs.
    """

    def __init__(
        self,
        control: minibroker.Broker,
        url: str,
        name: str,
        plan: Plan,
        patience_s: float,
        on_look: Callable[[Generator], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.plan = plan
        self.meter = Meter()
        self.ledger = Ledger()
        self.schedule = Schedule(plan, 0)
        self.durability = plan.durability
        self.counters: dict[str, int] = {}  # of the queue, when last looked at
        self.servers: list[dict[str, Any]] = []  # what it said of itself, before and after
        self.left = False  # the queue could not be deleted
        self._owned = False  # the queue is to be deleted
        self.server_version = control.server_version
        self._control = control
        self._queue = control.queue(name)
        self._url = url
        self._patience_s = patience_s
        self._on_look = on_look
        self._balanced: Task = asyncio.get_running_loop().create_future()
        self._background: list[Task] = []  # consumers and the watch: they end with an error only
        self._lanes: list[Task] = []
        self._brokers: list[minibroker.Broker] = []

    async def run(self, keep: bool) -> None:
        """Run the plan. The queue is deleted in the end, unless `keep`, which also allows one that exists.

        Raises:
            Unusable: the queue exists, or has messages or consumers.
            ConnectionLost: the server went away and did not come back; the text names the queue that is left.
            MinibrokerError: the server refused something.
        """
        try:
            await self._claim(keep)
            await self._measure()
        except BaseException as error:
            await self._hurry_away()
            if isinstance(error, TimeoutError | ConnectionError) and not await self._answers():
                where = f", and queue {self.name} is left there" if self._owned else ""
                text = f"it went away during the bench{where}"
                raise minibroker.ConnectionLost(text) from error
            self.left = self._owned and not await self._delete()
            raise
        self.left = self._owned and not await self._delete()

    # ---- the queue ----

    async def _claim(self, keep: bool) -> None:
        self.servers.append((await self._control.stats())["server"])
        try:
            settings = await self._queue.settings()
        except minibroker.UnknownQueue:
            self._owned = not keep  # before it is asked for: the answer may never come
            settings = await self._queue.set(durability=self.plan.durability)
        else:
            if not keep:
                raise Unusable(
                    f"queue {self.name!r} exists already. A bench deletes its queue: "
                    "choose another name, or use an empty one and keep it with --keep"
                )
            await self._look()
            if self.stored() or self.counters["consumers"]:
                raise Unusable(
                    f"queue {self.name!r} has messages or consumers, which a bench would disturb"
                )
        self.durability = str(settings["durability"])

    async def _delete(self) -> bool:
        """Delete the queue; whether it is gone. Its consumers may need a moment to be gone themselves."""
        try:
            async with asyncio.timeout(DELETE_S):
                while True:
                    try:
                        await self._queue.delete(force=True)
                    except minibroker.QueueInUse:
                        await asyncio.sleep(0.05)
                    else:
                        return True
        except minibroker.UnknownQueue:
            return True
        except (TimeoutError, minibroker.MinibrokerError):
            return False

    # ---- the run ----

    async def _measure(self) -> None:
        plan, meter, ledger = self.plan, self.meter, self.ledger
        payload = payload_of(plan)
        pacer = Pacer()
        try:
            publishing = await self._connect()
            if plan.consumers:
                await self._start_consumers(await self._connect(), payload)
            self._background.append(asyncio.ensure_future(self._watch()))
            gc.collect()
            gc.freeze()  # what is loaded by now is never garbage: pauses of ours are not the server's
            meter.start()
            self.schedule = Schedule(plan, meter.start_ns)
            for at in range(plan.producers):
                queue = publishing[at % len(publishing)].queue(self.name)
                producer = Producer(plan, queue, self.schedule, pacer, payload, ledger, meter)
                self._lanes += [asyncio.ensure_future(producer.lane()) for _ in range(plan.window)]
            self._lanes.append(asyncio.ensure_future(_all(self._lanes[:])))
            await self._until(self._lanes[-1])
            meter.stop()
            ledger.complete = True
            if plan.consumers:
                if ledger.balanced:
                    self._on_balanced()
                await self._until(self._balanced)
        finally:
            pacer.close()
        await _end(self._background, self._patience_s)
        meter.acked_ns = perf_counter_ns()
        await self._look()
        self.servers.append((await self._control.stats())["server"])
        await asyncio.gather(*(broker.close() for broker in self._brokers))

    async def _connect(self) -> list[minibroker.Broker]:
        made = []
        for _ in range(self.plan.connections):
            broker = await minibroker.connect(
                self._url,
                name="minibroker bench",
                timeout=self._patience_s,
                connect_timeout=self._patience_s,
                on_settle_error=self.meter.ack_failed,
            )
            self._brokers.append(broker)
            made.append(broker)
        return made

    async def _start_consumers(self, brokers: list[minibroker.Broker], payload: Any) -> None:
        started: Task = asyncio.get_running_loop().create_future()
        missing = self.plan.consumers

        def on_start() -> None:
            nonlocal missing
            missing -= 1
            if not missing and not started.done():
                started.set_result(None)

        for number in range(self.plan.consumers):
            queue = brokers[number % len(brokers)].queue(self.name)
            consumer = Consumer(
                queue, self.plan.prefetch, payload, self.ledger, self.meter, self._on_balanced
            )
            self._background.append(asyncio.ensure_future(consumer.consume(on_start)))
        await self._until(started)

    def _on_balanced(self) -> None:
        if not self._balanced.done():
            self._balanced.set_result(None)

    async def _until(self, goal: Task) -> None:
        """Return when `goal` is reached; raise its error, or that of whatever runs beside it."""
        while not goal.done():
            await asyncio.wait((goal, *self._background), return_when=asyncio.FIRST_COMPLETED)
            for task in self._background:
                if task.done():
                    task.result()
                    raise AssertionError("what runs beside it ends with an error only")
        goal.result()

    async def _watch(self) -> None:
        """Look at the server once a second: is it there, and does it still have what we wait for?"""
        while True:
            await asyncio.sleep(LOOK_S)
            complete = self.ledger.complete
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._look()
            except TimeoutError as error:
                text = f"the server gave no sign of life within {self._patience_s:g} s"
                raise minibroker.Timeout(text) from error
            self._on_look(self)
            quiet_s = (perf_counter_ns() - max(self.meter.last_seen_ns, self.meter.start_ns)) / 1e9
            if complete and (not self.stored() or quiet_s > STALL_S):
                self._on_balanced()  # what has not come by now was lost: the books say how much

    async def _look(self) -> None:
        self.counters = (await self._queue.stats())["queues"][self.name]

    def stored(self) -> int:
        """Return how many messages the queue had when last looked at, in all states."""
        return sum(self.counters[state] for state in STATES)

    # ---- leaving in trouble ----

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._control.ping()
        except (TimeoutError, minibroker.MinibrokerError):
            return False
        return True

    async def _hurry_away(self) -> None:
        """End everything within a few `LEAVE_S`, confirmed or not."""
        await _end([*self._lanes, *self._background], LEAVE_S)
        closing: list[Task] = [asyncio.ensure_future(broker.close()) for broker in self._brokers]
        await _settle(closing, LEAVE_S)
        await _end(closing, LEAVE_S)


async def _all(tasks: Iterable[Task]) -> None:
    """Wait for all of `tasks`, or raise the first error; a bare `gather` complains if nobody asks for it."""
    await asyncio.gather(*tasks)


async def _end(tasks: Iterable[Task], within_s: float) -> None:
    """Cancel `tasks` and wait; who is not done within the time is cancelled while it cleans up."""
    tasks = list(tasks)
    for _ in range(2):
        for task in tasks:
            task.cancel()
        await _settle(tasks, within_s)


async def _settle(tasks: list[Task], within_s: float) -> None:
    if tasks:
        done, _ = await asyncio.wait(tasks, timeout=within_s)
        for task in done:
            if not task.cancelled():
                task.exception()  # it was raised elsewhere, or nobody needs to know any more
