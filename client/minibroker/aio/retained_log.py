"""A retained log as the application sees it: its groups, and reading it without one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from minibroker.aio.driver import Driver
from minibroker.session import log_wishes
from minibroker.session.log_pages import LogMessage, LogPage
from minibroker.session.log_wishes import GroupInfo, LogInfo, Start
from minibroker.session.spans import Span
from minibroker.session.wishes import Wish, timeout_ms
from minibroker.shell.monotonic import now_ms

FOLLOW_WAIT_S = 60.0  # one request of `follow` waits so long for a message


class RetainedLog:
    """One retained log of a broker; made by `Broker.log`, which asks nothing of the server.

    It is made, and published to, as a queue: `broker.queue("events", kind="log")`. A group of it is a queue, too:
    `broker.queue("events@audit")`, with leases, retries and a dead-letter queue of its own (docs/guide/logs.md).
    """

    def __init__(self, driver: Driver, name: str) -> None:
        self._driver = driver
        self.name = name

    async def declare_group(
        self, group: str, start: Start = "first", *, timeout: Span | None = None
    ) -> GroupInfo:
        """Make a group, unless it is there; return how it stands.

            await broker.log("events").declare_group("audit", start="next")

        Args:
            group: its name in this log; its queue is `LOG@GROUP`.
            start: "first" (all that is kept), "last" (from the newest message on), "next" (what comes from now),
                an offset, or a datetime; of one that is there it changes nothing.
            timeout: deadline of this call.

        Raises:
            TypeError, BadName, BadValue: no such group can be, or this is no retained log.
            UnknownQueue: there is no such log.
        """
        value = await self._ask(timeout, log_wishes.group_set(self.name, group, start))
        return log_wishes.read_group(value)

    async def seek(
        self, group: str, start: Start, *, key: str | None = None, timeout: Span | None = None
    ) -> GroupInfo:
        """Move a group to another place: replay. `start` is as for `declare_group`.

        What it has not ended yet ends there: what waits comes again if it stands behind the new place, and what
        workers have is lost to them (LeaseLost). Its dead letters stay.

        With a `key`, of those that the group had ended only messages of that come again; what it had not comes as
        it would have, and from the first message that it had not ended on everything comes again, of every key,
        also what had ended behind that (at least once). Busy while one is under way.
        """
        value = await self._ask(timeout, log_wishes.group_seek(self.name, group, start, key))
        return log_wishes.read_group(value)

    async def show(self, *, timeout: Span | None = None) -> LogInfo:
        """Return what the log has, and how its groups stand."""
        by_ms = now_ms() + timeout_ms(timeout, self._driver.timeout_ms)
        pages: list[dict[str, Any]] = []
        after = ""
        while not pages or after:
            left_s = max(0, by_ms - now_ms()) / 1_000
            page = await self._ask(left_s, log_wishes.show(self.name, after))
            pages.append(page)
            after = page.get("next", "")
        return log_wishes.read_info(pages)

    async def read(
        self,
        start: Start = "first",
        *,
        most_bytes: int = log_wishes.READ_BYTES,
        wait: Span | None = None,
        timeout: Span | None = None,
    ) -> LogPage:
        """Return about `most_bytes` of messages from a place on; nothing is changed. Go on at `page.next`.

        Args:
            start: as for `declare_group`.
            most_bytes: at most 4 MiB; the log is read in whole frames, one at the least.
            wait: for so long, where there is nothing yet; None: not at all, and the page is empty.
            timeout: deadline of this call; `wait` passes at the server, and comes on top of it.
        """
        op, fields, columns = log_wishes.read(self.name, start, most_bytes, wait)
        within_ms = timeout_ms(timeout, self._driver.timeout_ms) + fields["wait_ms"]
        page: LogPage = await self._driver.request(op, fields, within_ms, columns)
        return page

    async def follow(self, start: Start = "first") -> AsyncIterator[LogMessage[Any]]:
        """Yield each message from a place on, and then those that come, for ever; leave it at any time.

        async for message in broker.log("events").follow("next"):
            print(message.offset, message.body)
        """
        while True:
            page = await self.read(start, wait=FOLLOW_WAIT_S)
            for message in page:
                yield message
            start = page.next

    async def _ask(self, timeout: Span | None, wish: Wish) -> Any:
        op, fields, columns = wish
        within_ms = timeout_ms(timeout, self._driver.timeout_ms)
        return await self._driver.request(op, fields, within_ms, columns)

    def __repr__(self) -> str:
        return f"<RetainedLog {self.name}>"
