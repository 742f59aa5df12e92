"""`broker.schedules`: jobs that the server publishes by a calendar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minibroker.aio.driver import Driver
from minibroker.contract.confirms import Confirm
from minibroker.session import schedule_wishes
from minibroker.session.schedule_wishes import Schedule
from minibroker.session.spans import Span
from minibroker.session.wishes import Wish, timeout_ms
from minibroker.shell.monotonic import now_ms


class Schedules:
    """The schedules of a server: their names are of the whole server."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def set(
        self,
        name: str,
        cron: str,
        queue: str,
        body: Any = None,
        *,
        zone: str = "UTC",
        misfire: str = "once",
        headers: Mapping[str, object] | None = None,
        key: str | None = None,
        delay: Span | None = None,
        max_attempts: int | None = None,
        lease: Span | None = None,
        priority: int = 0,
        ttl: Span | None = None,
        unique_key: str | None = None,
        unique: str = "drop",
        timeout: Span | None = None,
    ) -> Schedule:
        """Have a job published whenever a calendar is due; or change the schedule of that name.

            await broker.schedules.set("nightly", "0 3 * * *", "reports", {"all": True}, zone="Europe/Berlin")

        Each time of the calendar has one job, also when the server is killed and starts again. What is set as it
        is already stays as it is, so a program may set its schedules at every start. The messages have two headers
        more: `minibroker-schedule`, the name, and `minibroker-due-unix-ms`, the time that they are for.

        Args:
            name: of the schedule.
            cron: five fields (minute, hour, day of month, month, weekday), six with seconds first, or @hourly,
                @daily, @weekly, @monthly, @yearly.
            queue: where it is published.
            body, headers, key, delay, max_attempts, lease, priority, ttl: as for `Queue.publish`; 16 KiB at most.
            unique_key, unique: likewise: while the job before has not ended, there is none, or it is replaced.
            zone: the time zone of `cron`, by its IANA name. docs/guide/schedules.md has what becomes of times
                when clocks change.
            misfire: of times that have passed when the server can publish again: "once" has a job for the last of
                them, "skip" too, if it is not more than a minute ago, "all" has one for each (at most 1,000).
            timeout: deadline of this call.

        Raises:
            TypeError, BadValue, TooLarge: no such schedule can be; the text says why.
            LimitReached: there are 10,000.
        """
        wish = schedule_wishes.change(
            name,
            cron,
            queue,
            body,
            zone=zone,
            misfire=misfire,
            headers=headers,
            key=key,
            delay=delay,
            max_attempts=max_attempts,
            lease=lease,
            priority=priority,
            ttl=ttl,
            unique_key=unique_key,
            unique=unique,
        )
        return schedule_wishes.read(await self._ask(timeout, wish))

    async def list(self, *, timeout: Span | None = None) -> list[Schedule]:
        """Return all schedules, by their names; of very many they are asked for page by page."""
        by_ms = now_ms() + timeout_ms(timeout, self._driver.timeout_ms)
        found: list[Schedule] = []
        after: str | None = ""
        while after is not None:
            page = await self._ask(max(0, by_ms - now_ms()) / 1_000, schedule_wishes.page(after))
            found += schedule_wishes.read_page(page)
            after = page.get("next")
        return found

    async def show(self, name: str, *, timeout: Span | None = None) -> Schedule:
        """Return one schedule; UnknownSchedule if there is none."""
        (found,) = schedule_wishes.read_page(await self._ask(timeout, schedule_wishes.one(name)))
        return found

    async def delete(self, name: str, *, timeout: Span | None = None) -> bool:
        """End a schedule; return whether there was one. What it published stays."""
        return bool((await self._ask(timeout, schedule_wishes.delete(name)))["deleted"])

    async def pause(self, name: str, *, timeout: Span | None = None) -> Schedule:
        """Let a schedule publish nothing until `resume`; UnknownSchedule if there is none."""
        return schedule_wishes.read(
            await self._ask(timeout, schedule_wishes.pause(name, paused=True))
        )

    async def resume(self, name: str, *, timeout: Span | None = None) -> Schedule:
        """Let a schedule go on with its next time: those that passed meanwhile are left out."""
        return schedule_wishes.read(
            await self._ask(timeout, schedule_wishes.pause(name, paused=False))
        )

    async def run(self, name: str, *, timeout: Span | None = None) -> Confirm:
        """Publish its job now, beside its times; ConnectionLost if it is not known whether it was."""
        return schedule_wishes.confirm(await self._ask(timeout, schedule_wishes.run(name)))

    async def _ask(self, timeout: Span | None, wish: Wish) -> Any:
        op, fields, columns = wish
        within_ms = timeout_ms(timeout, self._driver.timeout_ms)
        return await self._driver.request(op, fields, within_ms, columns)
