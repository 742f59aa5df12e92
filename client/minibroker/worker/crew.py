"""The slots of one handler: tasks that take one message after the other, call it, and see to what becomes of it.

What runs for every message stands in `_take_and_call`; everything that only some messages need is elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from minibroker.aio.broker import Broker
from minibroker.aio.consumer import Consumption
from minibroker.aio.message import Message
from minibroker.aio.queue import Queue
from minibroker.contract.errors import BodyError, MinibrokerError, SettingsDiffer
from minibroker.contract.limits import GROUP_MARK
from minibroker.session.settlements import ENDED
from minibroker.shell.real_threads import Clock
from minibroker.worker.calling import Call
from minibroker.worker.declared import Declared
from minibroker.worker.following import Follows, Reject, Retry, dlq_of, follows, most_attempts
from minibroker.worker.reporting import Report

SETTINGS_S: Final = 30.0  # how long what a queue's settings were is believed


class Crew:
    """Works on one queue with one handler, from `run` until `stop`."""

    def __init__(self, declared: Declared, call: Call, broker: Broker, report: Report) -> None:
        self.declared = declared
        self.count = 0  # messages whose handler ended, well or not
        self.opened = asyncio.Event()  # messages can come
        self._call = call
        self._broker = broker
        settings: dict[str, Any] = dict(declared.settings)
        self._queue: Queue[Any] = broker.queue(
            declared.queue, overwrite=declared.overwrite, **settings
        )
        self._report = report
        self._running: list[Message[Any] | None] = [None] * declared.concurrency
        self._slots: list[asyncio.Task[BaseException | None]] = []
        self._stop = asyncio.Event()
        self._settings: Mapping[str, int | str] | None = None
        self._settings_at = -SETTINGS_S
        self._asking = asyncio.Lock()  # for the settings: who fails meanwhile waits for the answer

    @property
    def running(self) -> list[Message[Any]]:
        """The messages that a handler works on."""
        return [message for message in self._running if message is not None]

    def stop(self) -> None:
        """Take nothing new; `run` returns when the handlers that run have ended."""
        self._stop.set()

    def cancel(self) -> None:
        """Cancel the handlers that run; their messages are given back."""
        for slot in self._slots:
            slot.cancel()

    async def run(self) -> BaseException | None:
        """Work until stopped; return what ended a handler and is no failure of it, such as SystemExit."""
        declared = self.declared
        if declared.start is not None:
            log, _, group = declared.queue.partition(GROUP_MARK)
            await self._broker.log(log).declare_group(group, declared.start)
        if declared.settings:
            with suppress(SettingsDiffer):  # the client says so, and the server's are left
                await self._queue.declared()
        async with self._queue.consume(declared.concurrency, declared.lease) as messages:
            create = asyncio.get_running_loop().create_task
            self._slots = [
                create(self._take_and_call(messages, at)) for at in range(declared.concurrency)
            ]
            self.opened.set()
            stopped = create(self._stop.wait())
            await asyncio.wait([stopped, *self._slots], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
        # Outside: what has not begun went back, while these go on.
        errors = await asyncio.gather(*self._slots, return_exceptions=True)
        return next((each for each in errors if _is_fatal(each)), None)

    async def _take_and_call(self, messages: Consumption[Any], at: int) -> BaseException | None:
        call, done, running = self._call, self._report.done, self._running
        clock = Clock.monotonic
        try:
            async for message in messages:
                running[at] = message
                async with message.process():
                    try:
                        value = await call(message)
                        if value is not None:
                            await message.returned(value)
                    except asyncio.CancelledError as error:
                        if message.lost or _is_asked():
                            raise
                        await self._failed(message, error)  # nobody asked this task
                    except Exception as error:  # noqa: BLE001 - it is told, and the message settled
                        await self._failed(message, error)
                    else:
                        if done is not None:
                            done(message, clock() - message.begun_at)
                running[at] = None
                self.count += 1
                if (
                    self._stop.is_set()
                ):  # not after the turns of the loop that `run` needs to hear of it
                    return None
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - raised in a task, SystemExit would stop the loop at once
            return error
        finally:
            running[at] = None
        return None

    # ---- failures ----

    async def _failed(self, message: Message[Any], error: BaseException) -> None:
        """Settle the message of a handler that failed, and say what follows."""
        seconds = Clock.monotonic() - message.begun_at
        settings = await self._known_settings()
        most = most_attempts(message.queue, message.max_attempts, settings)
        if message.state == ENDED:
            what = Follows(message.attempt, most, is_over=True)
        elif isinstance(error, BodyError | Reject):
            what = Follows(message.attempt, most, dead_letter=dlq_of(message.queue))
            await message.reject(error)
        else:
            wish = error if isinstance(error, Retry) else None
            delay_s = None if wish is None else wish.delay
            what = follows(message.queue, message.attempt, settings, delay_s, message.max_attempts)
            key_delay_s = None if wish is None else wish.key_delay
            await message.nack(error, delay=what.delay_s, key_delay=key_delay_s)
        self._report.failed(message, seconds, error, what)

    async def _known_settings(self) -> Mapping[str, int | str] | None:
        """Return the settings of the queue as they were a moment ago; None if they cannot be had."""
        async with self._asking:
            if Clock.monotonic() - self._settings_at >= SETTINGS_S:
                try:
                    self._settings = await self._queue.settings()
                except MinibrokerError as error:
                    self._report.event("settings_unknown", logging.DEBUG, error=str(error))
                self._settings_at = Clock.monotonic()
        return self._settings


def _is_asked() -> bool:
    """Return whether somebody asked this task to be cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _is_fatal(outcome: BaseException | None) -> bool:
    return outcome is not None and not isinstance(outcome, asyncio.CancelledError)
