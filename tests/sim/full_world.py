"""A broker on a full disk, in simulated time: the real core, engine and log, and a writer without a thread.

Nothing here is left to chance but what a seed draws, so a case that fails does so each time.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, cast

from sim_broker import SimulatedClock, silenced
from sim_loop import Life, LifeLoop, SimulatedLoop
from sim_reading import BrokerLoop

from minibroker.contract import limits, wire
from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.core.model.effects import Outgoing
from minibrokerd.core.model.inputs import Hello
from minibrokerd.engine.engine import Engine
from minibrokerd.log.filelog import FileLog
from minibrokerd.log.writer import Job
from minibrokerd.net.frames import read_frame
from minibrokerd.rescue.restoring import AtOnce
from support.simulated_disk import SimulatedDisk

Run = tuple[int, int, int, int]  # token, origin, sequence, 1
RETRY_S = 0.25
TURN_US = 5_000
# Two seconds beyond the wait for the session of before, in which nothing comes: nothing will.
MOST_TURNS = 400 + 1_000 * limits.RESUME_WAIT_MS // TURN_US
START_UNIX_MS = 1_700_000_000_000


class SmallDisk(SimulatedDisk):
    """A disk on which files take `most_bytes` together."""

    most_bytes = 0

    @property
    def used_bytes(self) -> int:
        """What they take now."""
        return sum(file.allocated for file in self.entries.values())

    def allocate(self, descriptor: int, size_bytes: int) -> None:
        """Give physical space, as far as there is some."""
        self._need(descriptor, size_bytes)
        super().allocate(descriptor, size_bytes)

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write; behind what was allocated that takes space, too."""
        self._need(descriptor, offset + len(data))
        return super().write(descriptor, data, offset)

    def _need(self, descriptor: int, size_bytes: int) -> None:
        more_bytes = size_bytes - self._open[descriptor].allocated
        if more_bytes > 0 and more_bytes > self.most_bytes - self.used_bytes:
            raise OSError(errno.ENOSPC, "No space left on device")


class InTheNextTurn(AtOnce):
    """A writer that does each job when it gets it, and says so in the next turn."""

    def __init__(
        self,
        loop: LifeLoop,
        work_ahead: Callable[[], bool],
        retry_due: Callable[[], bool],
        retry: Callable[[], bool],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        super().__init__()
        self._loop = loop
        self._work_ahead = work_ahead
        self._retry_due = retry_due
        self._retry = retry
        self._waits = False

    def put(self, job: Job) -> None:
        """Do it, and the work ahead."""
        job.run()
        while self._work_ahead():
            continue
        if job.end(succeeded=True) and job.done is not None:
            self.post(job.done)
        self._look()

    def wait(self, job: Job, seconds: float) -> bool:
        """It is done."""
        return job.wait(0)

    def post(self, callback: Callable[[], None]) -> None:
        """Call in the next turn."""
        self._loop.call_soon(callback)

    def _look(self) -> None:
        if self._retry_due() and not self._waits:
            self._waits = True
            self._loop.call_later(RETRY_S, self._try_again)

    def _try_again(self) -> None:
        self._waits = False
        self._retry()
        self._look()


class FullWorld:
    """One broker, its disk, and a client that asks one thing at a time; `held` are the runs that it holds."""

    def __init__(
        self, segment_bytes: int, disk_bytes: int, seed: int = 1, disk: SmallDisk | None = None
    ) -> None:
        self.random = Random(seed)
        self.disk = disk or SmallDisk()
        self.disk.most_bytes = disk_bytes
        self._segment_bytes = segment_bytes
        self._loop = SimulatedLoop()
        self._start()

    def _start(self) -> None:
        self.life = Life()
        loop = BrokerLoop(self._loop, self.life, self.random, lambda: 100)
        self.log = FileLog(
            "/log",
            segment_bytes=self._segment_bytes,
            ops=self.disk,
            digests=True,
            make_writer=partial(InTheNextTurn, loop),
        )
        self.core = Core(BodyStore(self.log.segments.read_one), sizes=self.log.sizes)
        clock = partial(SimulatedClock, self._loop, self._unix_ms)
        self.engine = Engine(
            self.core, self.log, cast(Any, loop), self._failed, make_clock=clock, random=lambda: 0.5
        )
        for part in self.log.recover():
            self.engine.replay(part)
        self.engine.start(self.log.now_ms)
        self.engine.clock.start()
        self.engine.sinks[1] = self
        self.held: list[Run] = []
        self._got: list[tuple[dict[str, Any], bytes]] = []
        self._sequence = 0
        self.engine.submit(Hello(1, "c"))
        self._wait_for(lambda header: header["op"] == "welcome")

    def restart(self) -> None:
        """Kill the broker, and start it again; what was held is handed out again."""
        self.life.over = True
        self.disk.let_go()
        with silenced():
            self._start()

    # -- the sink of the one connection

    def send(self, outgoing: Outgoing) -> None:
        """Take one frame."""
        self._got.append((outgoing.header, outgoing.columns))

    def ahead(self, outgoing: Outgoing) -> None:
        """Nothing is sent ahead of its turn."""

    def flush(self) -> None:
        """Nothing is kept back."""

    def refused(self, code: str, text: str) -> None:
        """Say why the connection is cut off, which it never should."""
        raise AssertionError(text)

    def close(self) -> None:
        """As `refused`."""
        raise AssertionError("it was closed")

    drop = close

    # -- what the client does

    def publish(self, count: int, body_bytes: int, **fields: Any) -> bool:
        """Publish in one frame; False: the disk is full."""
        lengths = struct.pack("<II", 0, body_bytes) * count
        part = {"op": "publish", "queue": "q", "count": count, **fields}
        return self._sent(part, b"", lengths, bytes(count * body_bytes))

    def fill(self, count: int, body_bytes: int, keys: int = 0) -> int:
        """Publish until the disk is full, and let somebody take what is left; return how many messages."""
        messages = 0
        fields: dict[str, str] = {}
        with silenced():
            while self.publish(count, body_bytes, **fields):
                messages += count
                if keys:
                    fields["key"] = f"key-{self.random.randrange(keys)}"
        self.disk.most_bytes = self.disk.used_bytes
        return messages

    def consume(self, prefetch: int) -> None:
        """Take messages from now on."""
        self._ask({"op": "consume", "queue": "q", "consumer": 1, "prefetch": prefetch})

    def settle(self, op: str, run: Run, **fields: Any) -> bool:
        """Settle one message, and wait for the confirm; False: the disk is full."""
        column = struct.pack("<QIQI", *run)
        if op in ("nack", "reject"):
            column += b"".join(
                struct.pack("<I", len(text)) + text for text in (b"ValueError", b"it failed")
            )
        return self._sent({"op": op, "queue": "q", "runs": 1, **fields}, column)

    def take(self) -> Run:
        """Return one of the messages that are held, whichever; waits until one is."""
        for _ in range(MOST_TURNS):
            if self.held:
                break
            self._turn(TURN_US)
        held = self.held
        assert held, "nothing is handed out"
        at = self.random.randrange(len(held))
        held[at], held[-1] = held[-1], held[at]
        return held.pop()

    def living(self) -> int:
        """Return how many messages of the queue have not ended."""
        counters = self._ask({"op": "stats"})["value"]["queues"]["q"]
        return sum(counters[state] for state in ("ready", "delayed", "held", "begun"))

    def _sent(self, part: dict[str, Any], *bins: bytes) -> bool:
        self._sequence += 1
        number = self._sequence
        header = {"parts": [part], "sequence": number, "answered_below": number}
        self._submit(header, *bins)
        answer = self._wait_for(lambda header: header.get("sequence") == number)
        if answer["op"] == "error":
            assert (answer["code"], answer["retryable"]) == ("disk_full", True), answer
            return False
        return True

    def _ask(self, part: dict[str, Any]) -> dict[str, Any]:
        self._submit({"parts": [part], "request": 1})
        return self._wait_for(lambda header: header.get("request") == 1)

    def _submit(self, header: dict[str, Any], *bins: bytes) -> None:
        bins = (*bins, b"", b"", b"")[:3]
        self.engine.submit(read_frame(wire.pack_frame(header, *bins)[4:], 1, 0.0))

    def _wait_for(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Let time pass until a frame comes that is wanted."""
        for turn in range(MOST_TURNS):
            for header in self._turn(TURN_US if turn else 0):
                if wanted(header):
                    return header
        raise AssertionError("nothing comes")

    def _turn(self, duration_us: int) -> list[dict[str, Any]]:
        self._loop.run_until(self._loop.now_us + duration_us)
        got, self._got = self._got, []
        for header, columns in got:
            if header["op"] == "deliver":
                self._hold(header, columns)
        return [header for header, _ in got]

    def _hold(self, header: dict[str, Any], columns: bytes) -> None:
        for number in range(header["runs"]):
            origin, first, count, *_ = struct.unpack_from("<IQIIBBQ", columns, 30 * number)
            self.held += [(header["token"], origin, first + at, 1) for at in range(count)]

    def _unix_ms(self) -> int:
        return START_UNIX_MS + self._loop.now_us // 1_000

    def _failed(self, error: BaseException) -> None:
        raise error
