"""Who keeps the retained logs of a world: makes them and their groups, reads, moves, purges, and ends them.

One log is hers alone: she publishes to it, ends it with all it has, and makes it again, all the time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sim_client import Habits
from sim_log_bounds import Removal, Sent
from sim_log_groups import Found, Group, Start
from sim_log_people import LogWorker
from sim_publisher import UNKNOWN

from minibroker.session.log_pages import LogPage

if TYPE_CHECKING:
    from sim_world import World

FOR_EVER_MS: Final = 600_000  # beyond the end of the world
AGAIN_US: Final = 200_000
OWN: Final = "x"  # her log


class LogKeeper(LogWorker):
    """See the head of this module; `verbs` are what she does, each as often as it is named."""

    def __init__(self, world: World, seed: int, per_second: float, verbs: list[str]) -> None:
        self._per_second = per_second
        self._verbs = verbs
        self._lives = 0  # of her own log
        self.has_own = False  # it is there for certain
        self.is_reading = False
        super().__init__(world, "keeper", Habits(), seed)

    def start(self) -> None:
        """Begin."""
        super().start()
        for log in self.books.bounds:
            if log != OWN:
                self._make(log, partial(self.books.standing.add, log))
        if OWN in self.books.bounds and not self._lives:
            self._live()
        self._now_and_then(self._per_second, self._do_something)

    def _make(self, log: str, then: Callable[[], object]) -> None:
        groups = [group for group in self.books.groups.values() if group.log == log]

        def made(value: Any, error: Exception | None) -> None:
            if error is not None:
                self.soon(AGAIN_US, self._make, log, then)
            elif groups:
                fields = {"queue": log, "group": groups.pop().name}
                self.ask("log_group_set", fields, made, FOR_EVER_MS)
            else:
                then()

        settings = self.books.bounds[log].settings
        self.ask("queue_set", {"queue": log, "settings": settings}, made, FOR_EVER_MS)

    def _do_something(self) -> None:
        standing = sorted(self.books.standing)
        if standing:
            log, verb = self.random.choice(standing), self.random.choice(self._verbs)
            getattr(self, f"_{verb}")(log)

    # -- reading --------------------------------------------------------------------------------

    def _read(self, log: str) -> None:
        offset, wait_ms = self.random.choice((0, 1, 10, 50)), self.random.choice((0, 0, 300))
        self._ask_for(log, offset, _nothing, self.random.choice((1, 3_000)), wait_ms)

    def _read_since(self, log: str) -> None:
        unix_ms = self.world.unix_ms() - self.random.choice((0, 50, 500, 2_000))
        asked_us = self.world.loop.now_us

        def told(value: Any, error: Exception | None) -> None:
            world = self.world
            queue = world.broker.core.store.queues.get(log) if world.broker is not None else None
            if error is None and queue is not None and not world.laws.jumped:
                rot, number, found = world.disk.rot, queue.number, _found(value)
                now_us = world.loop.now_us

                def is_spoilt(sent: Sent) -> bool:
                    return sent.id in rot.suspects or rot.is_spoilt(number, sent.offset)

                self.books.read_since(log, unix_ms, found, asked_us, now_us, is_spoilt)

        fields = {"queue": log, "start": "time", "at": unix_ms, "most_bytes": 3_000}
        self.ask("log_read", fields, told)

    def _show(self, log: str) -> None:
        def told(value: Any, error: Exception | None) -> None:
            if error is None and not value["first"] <= value["stop"] <= value["next_offset"]:
                self.world.checker.violation("O1", f"{log} shows {value}")

        self.ask("log_show", {"queue": log}, told)

    def _ask_for(
        self,
        log: str,
        offset: int,
        then: Callable[[LogPage], object],
        most_bytes: int,
        wait_ms: int,
    ) -> None:
        asked_us = self.world.loop.now_us

        def told(value: Any, error: Exception | None) -> None:
            if error is None:
                self.books.read(log, offset, _found(value), asked_us)
                then(value)
            elif self.world.draining:
                self.soon(AGAIN_US, self._ask_for, log, offset, then, most_bytes, wait_ms)

        fields = {"queue": log, "start": "offset", "at": offset}
        fields |= {"most_bytes": most_bytes, "wait_ms": wait_ms}
        self.ask("log_read", fields, told, wait_ms + self.timeout_ms)

    def read_all(self, log: str, found: list[tuple[int, bytes]], offset: int = 0) -> None:
        """Read a log to its end; `is_reading` until that."""
        self.is_reading = True

        def then(page: LogPage) -> None:
            found.extend(_found(page))
            if page.next < page.stop:
                self.read_all(log, found, page.next)
            else:
                self.is_reading = False

        self._ask_for(log, offset, then, 3_000, 0)

    # -- groups ---------------------------------------------------------------------------------

    def _group(self, log: str) -> Group:
        return self.random.choice([each for each in self.books.groups.values() if each.log == log])

    def _seek(self, log: str) -> None:
        """Move a group; where it stands then is known if the answer comes."""
        group, random = self._group(log), self.random
        start, at = random.choice(
            (("first", 0), ("last", 0), ("next", 0), ("offset", random.randrange(60)), ("time", 1))
        )
        if start == "time":
            at = max(1, self.world.unix_ms() - random.choice((0, 100, 1_000)))
        key = f"k{random.randrange(3)}" if random.random() < 0.3 else ""

        def told(value: Any, error: Exception | None) -> None:
            if error is None and not group.is_new:
                offset = None if start == "time" else value["position"]
                now_us = self.world.loop.now_us
                group.moved(value["seeks"], Start(offset, key, now_us))

        fields = {"queue": log, "group": group.name, "start": start, "at": at, "key": key}
        self.ask("log_group_seek", fields, told)

    def _end_group(self, log: str) -> None:
        """End a group, and make it again: it gets all from the first message on."""
        group = self._group(log)
        group.ended()
        self.world.deleted = True  # its counters begin anew

        def again(value: Any, error: Exception | None) -> None:
            fields = {"queue": log, "group": group.name}
            self.ask("log_group_set", fields, _seen, FOR_EVER_MS)

        self.ask("queue_delete", {"queue": group.queue, "force": 1}, again, FOR_EVER_MS)

    # -- the end of messages --------------------------------------------------------------------

    def _purge(self, log: str) -> None:
        self._remove(log, "purge", {"queue": log}, _nothing)

    def _remove(
        self, log: str, op: str, fields: dict[str, object], then: Callable[[bool], object]
    ) -> None:
        removal = Removal(self.world.loop.now_us)
        self.books.bounds[log].removals.append(removal)

        def told(value: Any, error: Exception | None) -> None:
            if error is None:
                removal.done_us = self.world.loop.now_us
            elif getattr(error, "code", "") not in UNKNOWN:
                removal.failed = True
            then(error is None)

        self.ask(op, fields, told)

    def _live(self) -> None:
        """One life of her own log; what is not known for certain is its last."""
        if self.quiet:
            return
        self._lives += 1
        self._make(OWN, self._fill)

    def _fill(self) -> None:
        self.has_own = True
        sent = [self.put(OWN, "", 100) for _ in range(self.random.choice((1, 5, 20)))]
        self.schedule()
        self.soon(300_000, self._end_log, sent, self.random.choice((0, 3)))

    def _end_log(self, sent: list[Sent], looks: int) -> None:
        if self.quiet or any(each.outcome != "ok" for each in sent):
            return
        if looks:  # it is read for a while
            self._read(OWN)
            self.soon(100_000, self._end_log, sent, looks - 1)
            return
        self.world.deleted, self.has_own = True, False
        self.books.ends(OWN)
        self._remove(OWN, "queue_delete", {"queue": OWN, "force": 1}, self._ended)

    def _ended(self, is_done: bool) -> None:
        if is_done:
            self._live()


def _found(page: LogPage) -> Found:
    """Return the offset and the name of each message."""
    return [(each.offset, each.raw or bytes(each.raw_headers)) for each in page]


def _nothing(value: Any) -> None:
    """Look at nothing more."""


def _seen(value: Any, error: Exception | None) -> None:
    """Whatever it is: the connection may have ended."""
