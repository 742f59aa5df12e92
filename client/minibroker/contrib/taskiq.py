"""Taskiq on minibroker: `broker = MinibrokerBroker()` in the place of another one.

Tasks, middlewares, schedulers and the `taskiq` command stay as they are; what is behind them differs: `delay` and
`priority` are the broker's own, a message is begun when its task starts, and what Taskiq would ack away unseen is
in the dead-letter queue. docs/guide/taskiq.md has the rest, decision 71 why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Final

from taskiq import (
    AckableMessage,
    AsyncBroker,
    AsyncResultBackend,
    BrokerMessage,
    TaskiqMiddleware,
    TaskiqResult,
)
from taskiq.abc.formatter import TaskiqFormatter
from taskiq.abc.serializer import TaskiqSerializer
from taskiq.depends.progress_tracker import TaskProgress
from taskiq.exceptions import NoResultError, ResultGetError
from taskiq.serializers import JSONSerializer

import minibroker
from minibroker.aio.consumer import Consumer
from minibroker.contract.errors import LeaseLost, MinibrokerError, TooLarge
from minibroker.contrib.lending import Lending
from minibroker.contrib.named_results import NamedResultsInLoop, too_large
from minibroker.session.settlements import BEGUN, HELD
from minibroker.session.spans import Span

logger = logging.getLogger("minibroker")

# Acks of tasks that took less wait for so long, to share a frame. Measured at `lazy`, on a busy machine: a
# task took 460 us of CPU with a frame for each ack, and takes 318. What is lost to a kill is so much work at most.
QUICK_S: Final = 0.001
AGAIN_S: Final = 1.0  # before messages are asked for again, when the server refused that
PATIENCE: Final = timedelta(
    days=7
)  # of a worker that kicks: it may be the retry of what it acks next
HIGHEST: Final = 9


class MinibrokerBroker(AsyncBroker):
    """A broker for Taskiq; it connects when it is used first.

        broker = MinibrokerBroker("minibroker://localhost:7272").with_result_backend(...)

    Args:
        url: as `minibroker.connect` has it.
        queue_name: of the queue that a worker listens to, and tasks go to without a label `queue_name`.
        prefetch: how many messages a worker has at most, the running ones among them: no less than its
            `--max-async-tasks` (100 if nothing is said) and `--max-prefetch` together.
        keep_failed: what has failed, and is not retried, goes to the dead-letter queue with its error.
        settings: of each queue, as `minibroker.Broker.queue` has them.
        options: the others of `minibroker.connect`: token, ca, timeout, ...
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        queue_name: str = "taskiq",
        prefetch: int = 128,
        keep_failed: bool = True,
        settings: dict[str, int | str] | None = None,
        **options: Any,
    ) -> None:
        self._formatter: TaskiqFormatter | None = None
        super().__init__()
        self.queue_name = queue_name
        self.prefetch = prefetch
        self._settings: dict[str, Any] = dict(settings or {})
        self._handles: dict[str, minibroker.Queue[Any]] = {}
        self._client = minibroker.connect(url, lazy=True, **options)
        self.add_middlewares(_KeepsFailed() if keep_failed else _SeesEnds())

    # ---- what starts, and what cannot ----

    @property
    def formatter(self) -> TaskiqFormatter:
        """The formatter, whichever was set, behind one that begins each message which is about to start."""
        assert self._formatter is not None, "the base class sets one"
        return self._formatter

    @formatter.setter
    def formatter(self, formatter: TaskiqFormatter) -> None:
        self._formatter = _Begins(formatter)

    def find_task(self, task_name: str) -> Any:
        """Return the task of this name, or None; then what named it is dead."""
        task = super().find_task(task_name)
        lent = _running.get()
        if task is None and lent is not None:
            lent.error = f"no task is called {task_name!r} here"
        return task

    # ---- the contract ----

    async def kick(self, message: BrokerMessage) -> None:
        """Store a message; its labels `delay` (seconds), `priority` (0 to 9) and `queue_name` say how and where.

        Raises:
            MinibrokerError: it is not stored, or nobody knows. A worker waits for a broker that is away.
        """
        labels = message.labels
        lent = _running.get()
        queue = self._queue(labels.get("queue_name") or self.queue_name)
        try:
            await queue.publish(
                message.message,
                delay=float(labels.get("delay") or 0),
                priority=max(0, min(HIGHEST, int(labels.get("priority") or 0))),
                timeout=PATIENCE if self.is_worker_process else None,
            )
        except MinibrokerError as error:
            if lent is not None and lent.task_id == message.task_id:
                lent.error = error  # a retry that is refused is a death
                await lent.ack()
            raise
        if lent is not None and lent.task_id == message.task_id:
            lent.goes_on = True

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield messages for as long as somebody listens, over everything that happens to the server."""
        while True:
            consumer: _LentMessages | None = None
            try:
                driver = self._client._driver
                driver.open_here()
                self._queue(self.queue_name)  # declared, with its settings
                consumer = _LentMessages(driver, self.queue_name, self.prefetch)
                await consumer.start()
                while True:
                    yield (await consumer.lend()).as_ackable()
            except (MinibrokerError, StopAsyncIteration) as error:
                logger.warning("listening to %s again in a moment: %s", self.queue_name, error)
            finally:
                if consumer is not None and not self._client._driver.is_closed:
                    consumer.write()
                    self._client._driver.machine.retire(consumer)
            await asyncio.sleep(AGAIN_S)

    async def shutdown(self) -> None:
        """Leave: what was acked is confirmed, what has not begun goes back."""
        await super().shutdown()
        for consumer in self._client._driver.consumers.values():
            if isinstance(consumer, _LentMessages):
                consumer.write()
        await self._client.close()

    def _queue(self, name: str) -> minibroker.Queue[Any]:
        queue = self._handles.get(name)
        if queue is None:  # its settings are looked through once
            queue = self._handles[name] = self._client.queue(name, **self._settings)
        return queue


class Lent(bytes):
    """What Taskiq gets of a message: its bytes, which know the delivery that they came with."""

    message: Any
    consumer: _LentMessages
    task_id: str | None
    error: BaseException | str | None
    goes_on: bool  # it was kicked again
    is_over: bool  # its task has run

    def as_ackable(self) -> AckableMessage:
        """Return it as Taskiq wants it; unchecked, as a check would copy the bytes."""
        return AckableMessage.model_construct(data=self, ack=self.ack)

    async def ack(self) -> None:
        """Settle it: dead if there is an error, done else."""
        message, consumer = self.message, self.consumer
        if not consumer.begin(message):
            return
        if self.error is None and self.is_over and consumer.acks_soon(message):
            return
        with suppress(LeaseLost):  # somebody else has it, and will say so
            if self.error is None:
                await message.ack()
            else:
                await message.reject(self.error)
        consumer.write()

    def ended(self, task: asyncio.Task[Any]) -> None:
        """Its task in the receiver has ended. If that failed nobody settles it: the attempt has."""
        error = None if task.cancelled() else task.exception()
        if error is not None and self.consumer.begin(self.message):
            self.consumer.spawn(self.message.nack(error))


_running: ContextVar[Lent | None] = ContextVar("minibroker_running", default=None)


class _LentMessages(Lending, Consumer[Any]):
    """A consumer of at most `prefetch` messages of a queue; each is begun when its task starts."""

    def __init__(self, driver: Any, queue: str, prefetch: int) -> None:
        self._quick: dict[int, Any] = {}  # done, and acked by the next write; begun until then
        self._timer: asyncio.TimerHandle | None = None  # of that write
        super().__init__(driver, queue, (prefetch, None), 0)

    async def lend(self) -> Lent:
        """Return a message that is not begun; StopAsyncIteration, MinibrokerError: no more will come."""
        while (message := self.lend_one()) is None:
            await self._more()
        lent = Lent(message.raw)
        lent.message, lent.consumer = message, self
        lent.task_id = lent.error = None
        lent.goes_on = lent.is_over = False
        return lent

    def begin(self, message: Any) -> bool:
        """Begin a message; False: it is not here any more, and somebody else may have it, or it was acked."""
        if id(message) in self._quick:
            return False
        driver, was_held = self._driver, message.state == HELD
        is_here = self.begin_lent(message, driver.clock())
        if is_here and was_held:
            if self.leaves_first(message, driver.last_write):
                self.write()
            else:
                driver.loop.call_soon(self._goes_on, message)
        return is_here

    def _goes_on(self, message: Any) -> None:
        """The loop has turned since a message began: the server is told, unless it is done."""
        if message.state == BEGUN and id(message) not in self._quick:
            self.write()

    def acks_soon(self, message: Any) -> bool:
        """Have a message acked with others, if it was quick and others wait here; False: it is for the caller."""
        quick = self._quick
        if (
            not (self._buffer or self._lent)
            or self._driver.clock() - message.begun_at > QUICK_S
            or len(quick) >= self._settlements.half
        ):
            return False
        quick[id(message)] = message
        if self._timer is None:
            self._timer = self._driver.loop.call_later(QUICK_S, self.write)
        return True

    def write(self) -> None:
        """Write what was settled, now: a process that dies then does not take it along."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for message in self._quick.values():
            with suppress(LeaseLost):  # somebody else has it, and will say so
                message._end()
                self._settlements.acks.append(message)
        self._quick.clear()
        self._settlements.owe()
        self._driver.flush()

    def spawn(self, work: Any) -> None:
        """Run a coroutine that nobody waits for."""
        self._driver.spawn(work)


class _Begins(TaskiqFormatter):
    """Reads messages with another formatter; Taskiq does so where it starts one, so here each begins."""

    def __init__(self, formatter: TaskiqFormatter) -> None:
        self._formatter = formatter

    def dumps(self, message: Any) -> BrokerMessage:
        return self._formatter.dumps(message)

    def loads(self, message: bytes) -> Any:
        if not isinstance(message, Lent):
            return self._formatter.loads(message)
        if not message.consumer.begin(message.message):
            raise LeaseLost("it was given back before it began: another worker has it, or will")
        try:
            loaded = self._formatter.loads(message)
            message.task_id = loaded.task_id
        except Exception as error:
            message.error = error
            raise
        _running.set(message)
        if (task := asyncio.current_task()) is not None:
            task.add_done_callback(message.ended)
        return loaded


class _SeesEnds(TaskiqMiddleware):
    """Sees that a task has run: what is acked before, or by hand, is acked at once."""

    def post_execute(self, message: Any, result: Any) -> None:
        if (lent := _running.get()) is not None:
            lent.is_over = True


class _KeepsFailed(_SeesEnds):
    """Lets what has failed, and was not kicked again, die: it stands first, so retries were seen to before."""

    def on_error(self, message: Any, result: Any, exception: BaseException) -> None:
        lent = _running.get()
        if lent is not None and not lent.goes_on and not isinstance(result.error, NoResultError):
            lent.error = exception


class MinibrokerResultBackend(AsyncResultBackend):
    """Results of tasks in a queue of minibroker, and how far they are.

        broker = MinibrokerBroker().with_result_backend(MinibrokerResultBackend())

    Args:
        url, options: as `MinibrokerBroker` has them.
        queue_name: of the queue that has them, which nobody consumes.
        kept: for so long, in seconds.
        keep_results: whether a result is there after it was asked for, too.
        serializer: of Taskiq; JSON if none is given.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        queue_name: str = "taskiq-results",
        kept: Span = 86_400,
        keep_results: bool = True,
        serializer: TaskiqSerializer | None = None,
        **options: Any,
    ) -> None:
        self._client = minibroker.connect(url, lazy=True, **options)
        self._results = NamedResultsInLoop(self._client, queue_name)
        self._kept = kept
        self._keeps = keep_results
        self._serializer = serializer or JSONSerializer()

    async def set_result(self, task_id: str, result: TaskiqResult) -> None:
        """Keep the result of a task; a worker waits for a broker that is away.

        Raises:
            TooLarge: it is larger than the broker takes. Who waits for it gets a result whose `error` says so.
        """
        try:
            await self._put(task_id, result)
        except TooLarge as error:
            told = {"is_err": True, "return_value": None, "log": None, "error": too_large(error)}
            await self._put(task_id, result.model_copy(update=told))
            raise

    async def is_result_ready(self, task_id: str) -> bool:
        """Return whether there is a result."""
        return await self._results.get(task_id) is not None

    async def get_result(self, task_id: str, with_logs: bool = False) -> TaskiqResult:
        """Return the result of a task; ResultGetError: there is none."""
        data = await self._results.get(task_id, forget=not self._keeps)
        if data is None:
            raise ResultGetError
        result = TaskiqResult.model_validate(self._serializer.loadb(data))
        if not with_logs:
            result.log = None
        return result

    async def set_progress(self, task_id: str, progress: TaskProgress) -> None:
        """Keep how far a task is."""
        await self._put(_progress_of(task_id), progress)

    async def get_progress(self, task_id: str) -> TaskProgress | None:
        """Return how far a task is; None: it has not said."""
        data = await self._results.get(_progress_of(task_id))
        return None if data is None else TaskProgress.model_validate(self._serializer.loadb(data))

    async def shutdown(self) -> None:
        """Leave."""
        await super().shutdown()
        await self._client.close()

    async def _put(self, name: str, value: Any) -> None:
        # Taskiq logs an error of this, and acks the task.
        data = self._serializer.dumpb(value.model_dump(mode="json"))
        patience = PATIENCE if _running.get() is not None else None
        await self._results.put(name, data, self._kept, patience)


def _progress_of(task_id: str) -> str:
    return f"{task_id}__progress"
