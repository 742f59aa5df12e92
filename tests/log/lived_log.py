"""The lives of lived_story.py as a data directory, and all that a later start can find in it.

What is found is asked for as a client would, in frames: nothing here knows how a core keeps what it has read. So
the same answers are expected whatever becomes of its insides.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from lived_story import HOUR_MS, SECOND_MS, Lived

from minibroker.contract import limits
from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.core.model.state import COUNTER_BITS
from minibrokerd.engine.indexer import Indexer
from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.filelog import FileLog
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.recovery import Recovery
from minibrokerd.log.seam import Batch, Record

sys.path.append(str(Path(__file__).parent.parent / "core"))
from core_client import Client, Delivered
from harness import World

AWAY_MS = 5_000  # from the end of the story to the start that finds it
RELEASED = (
    "copied",
    "failed",
)  # queues of which each message is released once: how often it was shows
LONGEST_MS = 13 * HOUR_MS  # by then every delay and every lease is over


async def write(path: Path, lived: Lived, *, segment_bytes: int, closed: bool) -> None:
    """Write a data directory with side indexes: each life is a start of its own, and ends as it did."""
    for number, life in enumerate(lived.lives):
        log = FileLog(path, segment_bytes=segment_bytes, digests=True)
        core = Core(BodyStore(log.segments.read_one))
        indexer = Indexer()
        for part in log.recover():
            core.replay(part)
            indexer.replayed(part)
        synced = asyncio.Queue[int]()
        log.lead(life[0].now_ms, life[0].unix_ms, synced.put_nowait, lambda: None, _failed)
        now_ms, unix_ms = life[0].now_ms, life[0].unix_ms
        core.opened(log.epoch, now_ms, unix_ms, clean=log.clean, next_batch=log.next_number)
        before = log.last_place
        for batch in life:
            records = [
                Record(one.type, one.meta, one.tail, one.tail_checksum, one.says)
                for one in batch.records
            ]
            log.append(
                Batch(log.next_number, records, batch.now_ms, batch.unix_ms), log.next_number - 1
            )
            await synced.get()
            place = log.last_place
            assert place is not None
            indexer.placed(records, place)
            if before is not None and before.segment != place.segment:
                log.segments.keep_digest(before.segment, indexer.take(before.segment))
            before = place
        if number == 0 or (closed and number == len(lived.lives) - 1):
            assert before is not None
            log.segments.keep_digest(before.segment, indexer.take(before.segment))
            log.close(life[-1].now_ms, life[-1].unix_ms)
        else:
            log.abandon()


def _failed(error: BaseException) -> None:
    raise error


class Found:
    """What a start finds in the directory that `write` made; everything is JSON."""

    def __init__(self, path: Path, known: dict[str, Any], unix_ms: int, *, digests: bool) -> None:
        """`known` is `Lived.clients`; `digests`: side indexes stand for the batches that they are about."""
        self._known = known
        self._world = world = World()
        recovery = Recovery(DataDirectory(path, FileOps()), FileOps(), digests=digests)
        world.log = list(recovery.batches())  # type: ignore[arg-type]
        world.records = _records(path)
        world.epoch, world.unix_ms = recovery.epoch, unix_ms + AWAY_MS
        world.restart(clean=recovery.clean)
        world.thaw()
        self._start_ms = world.now_ms
        self._numbers: list[int] = []  # sessions and tokens that are used

    def everything(self) -> dict[str, Any]:
        """Ask in this order: looks first, then who comes back, then all messages until none is left."""
        watcher = self._world.hello("watcher")
        stats = watcher.request({"op": "stats"})["value"]
        return {
            "epoch": stats["server"]["epoch"],
            "sessions": stats["server"]["sessions"] - 1,
            "queues": {
                name: {
                    "stats": {key: value for key, value in counters.items() if value},
                    "settings": {"settings": _settings(watcher, name)},
                    "messages": [_shown(info) for info in watcher.peek(name)],
                }
                for name, counters in stats["queues"].items()
            },
            "clients": {name: self._comes_back(name) for name in self._known},
            "delivered": self._drained(list(stats["queues"])),
            "goes_on": self._goes_on(list(stats["queues"])),
        }

    def _comes_back(self, name: str) -> dict[str, Any]:
        """Resume a session, send all its frames once more, and ask again for what it may not have got."""
        known, world = self._known[name], self._world
        old = Client(world, 0, name)
        old.session = known["session"]
        client = world.resume(old, runs=[tuple(run) for run in known["begun"]])
        welcome = client.pop("welcome")
        found: dict[str, Any] = {
            "known": welcome["known"],
            "lost": [list(run) for run in welcome["lost_runs"]],
            "frames": {},
        }
        for number, frame in known["frames"].items():
            if client.closed:
                break
            client.send(bytes.fromhex(frame))
            found["frames"][number] = _answer(client.answer(sequence=int(number)))
        if "received" in known:
            client.requests = known["received"] - 1
            world.advance(SECOND_MS)
            again = client.receive("once", 1, wait_ms=HOUR_MS)
            found["received"] = [list(one.run) for one in again["messages"]]
        world.disconnect(client)
        self._numbers += [known["session"], *[run[0] for run in known["begun"]]]
        return found

    def _drained(self, queues: list[str]) -> list[Any]:
        """Take and ack everything as it comes, to the millisecond; what is released comes once more."""
        world, client = self._world, self._world.hello("drainer")
        for number, name in enumerate(queues, 1):
            client.consume(name, prefetch=limits.MAX_PREFETCH, consumer=number)
        found: list[Any] = []
        seen: set[tuple[int, int]] = set()
        end_ms = self._start_ms + LONGEST_MS
        while True:
            while messages := client.messages():
                for message in messages:
                    self._numbers.append(message.token)
                    found.append(self._delivered(message))
                    again = message.queue in RELEASED and message.id not in seen
                    seen.add(message.id)
                    client.settle("release" if again else "ack", message)
            deadline_ms = world.core.next_deadline_ms()
            if deadline_ms is None or deadline_ms > end_ms:
                return found
            world.advance(max(deadline_ms - world.now_ms, 0))

    def _delivered(self, message: Delivered) -> list[Any]:
        return [
            self._world.now_ms - self._start_ms,
            message.queue,
            f"{message.origin}-{message.sequence}",
            message.attempt,
            message.marked,
            message.encoding,
            message.published_unix_ms,
            message.key,
            message.body.hex(),
        ]

    def _goes_on(self, queues: list[str]) -> dict[str, Any]:
        """Nothing is left, and no number is given twice.

        A session has one above all that were used. Which one is not said: what looks at messages takes some, too.
        """
        client = self._world.hello("next")
        self._world.advance(SECOND_MS)
        left = {name: client.peek(name) for name in queues}
        first = {
            name: client.publish(name, b"next")["results"][0]["first"]
            for name in queues
            if not name.endswith(limits.DLQ_SUFFIX)
        }
        new = client.publish("new", b"new")["results"][0]
        assert client.session > max(self._numbers)
        return {"left": left, "first": first, "new": new, "epoch": client.session >> COUNTER_BITS}


def _records(path: Path) -> dict[tuple[int, int], Record]:
    """Return every record of a directory by its place."""
    recovery = Recovery(DataDirectory(path, FileOps()), FileOps())
    found = {}
    for batch in recovery.batches():
        assert isinstance(batch, Batch)
        assert batch.place is not None
        at = batch.place.offset
        for record in batch.records:
            found[batch.place.segment, at] = record
            at += record.size_bytes
    return found


def _settings(watcher: Client, queue: str) -> dict[str, Any]:
    """Return the settings of a queue; where they come from the older builds did not say."""
    value = watcher.request({"op": "queue_show", "queue": queue})["value"]
    settings: dict[str, Any] = value["settings"]
    return settings


def _shown(info: dict[str, Any]) -> dict[str, Any]:
    return info | {"body": info["body"].hex()}


def _answer(answer: dict[str, Any]) -> Any:
    if answer["op"] == "error":
        return answer["code"]
    return [answer["results"], [list(run) for run in answer["lost_runs"]]]
