"""Connecting, and connecting again: one attempt after the other, each a task; between them no task is needed.

An open connection does not depend on any task, so a program that cancels all of its tasks (`asyncio.run` does at
its end) still gets its answers until it closes the connection.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Callable
from typing import Final

from minibroker.aio.driver import GOODBYE, Driver
from minibroker.aio.in_process import Address, InProcess, where
from minibroker.aio.link import Link
from minibroker.aio.timer import now_ms
from minibroker.contract import limits
from minibroker.contract.errors import LeaseLost, LoginRefused, MinibrokerError
from minibroker.session.settlements import ENDED

logger = logging.getLogger("minibroker")

FIRST_DELAY_S: Final = 0.05
# With its variation below the time for which a server that crashed holds back what was begun: a longer one
# lost begun messages to other consumers, however quickly the server was back.
LONGEST_DELAY_S: Final = limits.RESUME_WAIT_MS / 1000 / 2


class Reconnecting:
    """Keeps a driver connected from `start` to `stop`; `opened` is done after the first login."""

    def __init__(self, address: Address, driver: Driver, connect_ms: int) -> None:
        self._address = address
        self._driver = driver
        self._connect_s = connect_ms / 1000
        self._loop = driver.loop
        self.opened: asyncio.Future[None] = driver.create_future()
        self._task: asyncio.Task[None] | None = None
        self._next: asyncio.TimerHandle | None = None
        self._delay_s = FIRST_DELAY_S
        self._attempts = 0  # since there was a connection
        self._lost_ms: int | None = None  # when the last one was lost

    @property
    def where(self) -> str:
        """Host and port, or memory://."""
        return where(self._address)

    def start(self) -> None:
        """Begin an attempt."""
        self._next = None
        if not self._driver.is_closed:
            self._attempts += 1
            self._task = self._loop.create_task(self._attempt())

    def stop(self) -> None:
        """Try no more; an attempt that runs is cancelled."""
        if self._next is not None:
            self._next.cancel()
        if self._task is not None:
            self._task.cancel()

    async def _attempt(self) -> None:
        try:
            await self._connect()
        except LoginRefused as error:
            if not self._forget_session() and not self.opened.done():
                self.opened.set_exception(error)
                return
            self._driver.disconnected(str(error))
            self._again(str(error))
        except (OSError, MinibrokerError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            self._driver.disconnected(why)
            self._again(why)
        except asyncio.CancelledError:
            self._again(
                "the attempt was cancelled"
            )  # by whoever cancels all tasks; `stop` says so before
            raise
        else:
            self._is_back()

    def _is_back(self) -> None:
        if self._lost_ms is not None:
            seconds = (now_ms() - self._lost_ms) / 1000
            logger.info(
                "connected to %s again after %.1f s (attempt %d)",
                self.where,
                seconds,
                self._attempts,
            )
        self._attempts, self._lost_ms, self._delay_s = 0, None, FIRST_DELAY_S
        if not self.opened.done():
            self.opened.set_result(None)

    def _again(self, why: str) -> None:
        """Try again, after a delay that doubles, by chance a bit off."""
        if self._driver.is_closed:
            return
        delay_s = self._delay_s * random.uniform(0.5, 1.5)
        self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)
        self._next = self._loop.call_later(delay_s, self.start)
        # Once each: the 1st, 2nd, 4th, ... attempt of an outage that goes on is told, the others to who debugs.
        told = self._attempts & (self._attempts - 1) == 0
        logger.log(
            logging.INFO if told else logging.DEBUG,
            "trying again to connect to %s (attempt %d in %.2f s): %s",
            self.where,
            self._attempts + 1,
            delay_s,
            why,
        )

    def _ended(self, link: Link, why: str) -> None:
        """Note that a link ended, if it is the current one: an older one may be late to say so."""
        if link is not self._driver.link:
            return
        was_open = link.welcomed.done()
        self._driver.disconnected(why)
        if was_open and not self._driver.is_closed:
            self._lost_ms = now_ms()
            logger.warning("the connection to %s is lost: %s", self.where, why)
            self._again(why)

    def _forget_session(self) -> bool:
        """Drop a session that the server refuses to resume; False if there was none."""
        driver, session = self._driver, self._driver.session
        if session.session_id is None:
            return False
        begun = [message for message in session.begun_messages() if message.state != ENDED]
        driver.act(session.forget())
        driver.lose(begun, LeaseLost("the server does not know this session any more"))
        return True

    async def _connect(self) -> None:
        async with asyncio.timeout(self._connect_s):
            link = await dial(self._address, self._driver.received)
            link.on_end = self._ended
            self._driver.link = link
            self._driver.received_ms = now_ms()
            session = self._driver.session
            is_new = session.session_id is None
            try:
                link.write([session.login()])
                await link.welcomed
            except BaseException:
                if is_new:
                    link.write([GOODBYE])  # the session that it may have opened is nobody's
                link.close()
                raise


async def dial(address: Address, received: Callable[[Link, bytes], None]) -> Link:
    """Return a link over a new connection to `address`; OSError if there is none."""
    if isinstance(address, InProcess):
        return address.dial(received)
    loop = asyncio.get_running_loop()
    transport, link = await loop.create_connection(lambda: Link(received), *address)
    # asyncio sets it too, uvloop leaves Nagle's algorithm on in some versions.
    transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link
