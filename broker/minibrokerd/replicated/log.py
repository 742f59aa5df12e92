"""`JetStreamLog`: the log of the engine in a replicated stream.

One append is one group commit, and one is in flight. The log is given up in stretches, as a file log in segments:
what lives in the oldest one is copied forward, a checkpoint says that the log starts behind it, and then it is
purged. What left memory is read back from a spool, or from the stream (`reading_back.py`).
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, Final

from minibrokerd.log import format as layout
from minibrokerd.log.failures import LogError
from minibrokerd.log.format import Kind
from minibrokerd.log.log_versions import FORMAT_VERSION
from minibrokerd.log.recovery import RecoveryReport
from minibrokerd.log.replication import Replication
from minibrokerd.log.seam import Batch, Place, Record, Room, SegmentStore
from minibrokerd.log.sizes import LARGEST
from minibrokerd.process.logs import OwnText, events
from minibrokerd.replicated.apart import APART_S, keep_apart
from minibrokerd.replicated.appender import Appender
from minibrokerd.replicated.entries import Statement, encoded, new_owner, run_of
from minibrokerd.replicated.failures import AnotherLeads
from minibrokerd.replicated.history import STRETCH_BYTES, History
from minibrokerd.replicated.leading import Fence, Overtaken
from minibrokerd.replicated.office import Office
from minibrokerd.replicated.reading_back import ReadingBack
from minibrokerd.replicated.spool import Spool
from minibrokerd.replicated.stalls import Stalls
from minibrokerd.replicated.standing_by import BEAT_S, Standing
from minibrokerd.replicated.stream import Entry, Stream, StreamAway
from minibrokerd.replicated.stream_space import StreamSpace
from minibrokerd.replicated.taking_over import NO_LAG, OpenStream, TakeOver
from minibrokerd.replicated.words import Word

INFO_S: Final = 10.0  # whether the stream was given a limit meanwhile
LOOK_S: Final = 0.5  # without an append: whether somebody else leads is looked at
LAST_WORD_S: Final = 0.5  # that a stop waits until its last word is said
CLOSE_S: Final = 5.0  # that a stop waits for its footer


class JetStreamLog:
    """A log in a stream that `open_stream` connects to: once to read it, and once to append."""

    def __init__(
        self,
        name: str,
        open_stream: OpenStream,
        owner: str = "",
        stretch_bytes: int = STRETCH_BYTES,
        address: str = "",
        spool: Spool | None = None,
    ) -> None:
        """`name` is that of the stream, `owner` what this broker is known by, `address` where clients find it.

        Without a `spool` what left memory is fetched.
        """
        self.name = name
        self._open_stream = open_stream
        self._owner = new_owner(owner or f"{socket.gethostname()}, process {os.getpid()}")
        self._word = Word(run_of(self._owner.bits), self._owner.name, address)
        self.history = History(name, stretch_bytes)
        self.back = ReadingBack(name, self.history.places, spool)
        self.read = self.back.read
        self.back.stream = lambda: (
            self._fence.stream if self._fence and not self._appender.is_closed else None
        )
        if spool is not None:
            # A disk that stands still must not look like silence.
            self.history.keep = spool.put_soon
        self.sizes = LARGEST
        self.epoch = 0
        self.store_id = b""
        self.session_key = b""
        self.now_ms = 0
        self.next_number = 1
        self.clean = True
        self.segment_bytes = stretch_bytes
        self.segments: SegmentStore | None = None
        self.last_place: Place | None = None
        self._landed_at: Place | None = None  # where the append stands that was acked last
        self.leadership = Office(lambda: monotonic())
        self.leadership.renew = self._renew
        self.report = RecoveryReport()
        self._taking: TakeOver | None = None
        self._fence: Fence | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way = False  # a batch of the engine is
        self._appender = Appender(self._claim_again, self._spawn, self._stored, self._fail)
        self._appended_s = 0.0
        self._stalled = Stalls(name)
        self._stamp = (0, 0)
        self._space = StreamSpace(stretch_bytes)
        self._under_way_bytes = 0  # of the batch
        self._asked_info_s = 0.0
        self._is_full = False  # a publish was refused, and there was no room since
        self._on_synced: Callable[[int], None] = _not_led
        self._on_room: Callable[[], None] = lambda: None
        self._on_failed: Callable[[BaseException], None] = _not_led

    # -- a start ------------------------------------------------------------------------------------

    def recover(self) -> Iterator[Batch | None]:
        """Read the log, and lead it: from the last batch on, nobody who led before can append.

        Raises:
            ReadAgain: to be called again; what was yielded counts no more.
            LogError: see `failures.py`.
        """
        taking = self._taking
        if taking is None or taking.is_spent:
            taking = self._take_over(None)
        yield from taking.batches()
        history = self.history
        self.store_id, self.session_key = history.store_id, history.session_key
        self.now_ms, self.clean = history.now_ms, history.is_clean
        stretches = history.stretches
        self.report.segments = len(stretches.sealed) + 1 if history.batches else 0
        self.report.batches, self.report.clean = history.batches, history.is_clean

    def follow(
        self, standing: Standing, is_stopped: Callable[[], object] = lambda: False
    ) -> AsyncIterator[list[Batch] | None]:
        """Yield batches as they come while another broker leads; at its end the log is claimed, for `recover`.

        None: what came before counts no more. Ends early when `is_stopped`; then the log is as it was. It is
        called again where a replay raised `ReadAgain`.
        """
        standing.own_run = self._word.run
        return self._take_over(standing).following(is_stopped)

    @property
    def why(self) -> str:
        """Why a broker that stood by has claimed the log: `stopped` or `silence`."""
        return self._taking.why if self._taking is not None else ""

    def _take_over(self, standing: Standing | None) -> TakeOver:
        if self._taking is not None:  # what it read counts no more
            self._taking.let_go()
            self.history.begin_again()
        self._taking = taking = TakeOver(
            self.history, self._open_stream, partial(self._make_fence, pause=asyncio.sleep), self._claim,
            standing=standing, word=self._word.encode(), on_start=self.back.give_up,
        )  # fmt: skip
        self.back.ask = taking.ask
        return taking

    @property
    def recovered_percent(self) -> int:
        """How much of the log was read."""
        end = self._taking.end if self._taking is not None else -1
        if end < 0:
            return 0
        return min(100, 100 * self.history.read_to // end) if end else 100

    def lead(
        self,
        now_ms: int,
        unix_ms: int,
        on_synced: Callable[[int], None],
        on_room: Callable[[], None],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        """Go on under the epoch that `recover` claimed."""
        assert self._taking is not None, "recover() comes first"
        assert self._taking.position, "recover() comes first, to its end"
        self._on_synced, self._on_room, self._on_failed = on_synced, on_room, on_failed
        self.epoch, self.next_number = self.history.epoch, self.history.number + 1
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._stamp = now_ms, unix_ms
        self.leadership.acked(self._taking.claimed_s)
        self._spawn(self._connect())
        self._loop.call_later(LOOK_S, self._look)
        self._loop.call_soon(self._beat)

    def _make_fence(self, stream: Stream, pause: Callable[[float], Any]) -> Fence:
        return Fence(stream, self._is_own, pause, self._stalls, monotonic)

    def _is_own(self, entry: Entry) -> bool:
        header = layout.decode_header(entry.body, 0)
        if header is None or not entry.is_epoch:
            return False
        return (header.origin.segment, header.origin.generation) == self._owner.bits

    def _claim(self) -> bytes:
        """Return the body of an epoch record that states one more than is known."""
        history = self.history
        # What another one said meanwhile, as the first of all, counts.
        self.store_id = history.store_id or self.store_id or os.urandom(16)
        self.session_key = history.session_key or self.session_key or os.urandom(32)
        return self._state(Kind.SEGMENT, 1, max(history.log_start, 1))[0]

    def _state(self, kind: Kind, more: int, log_start: int) -> list[bytes]:
        says = Statement(FORMAT_VERSION, log_start, self.session_key, self._owner.name)
        return self._encoded([says.record()], kind, self.history.number, *self._stamp, more)

    def _encoded(
        self, records: list[Record], kind: Kind, number: int, now_ms: int, unix_ms: int, more: int = 0
    ) -> list[bytes]:  # fmt: skip
        claims = self._fence.claims if self._fence is not None else 0
        return encoded(
            records,
            kind,
            store_id=self.store_id,
            owner=self._owner,
            number=number,
            epoch=self.history.epoch + claims + more,
            now_ms=now_ms,
            unix_ms=unix_ms,
        )

    async def _connect(self) -> None:
        assert self._taking is not None
        while not self._appender.is_closed:
            try:
                stream = await self._open_stream()
            except LogError as error:
                self._stalls(str(error))
                await asyncio.sleep(LOOK_S)  # a login is refused at once
                continue
            self._fence = self._make_fence(stream, asyncio.sleep)
            self._fence.position = self._taking.position
            await stream.say(self._word.encode())
            self._taking.hand_over()
            asyncio.get_running_loop().call_later(APART_S, self._stay_apart)
            self._appender.open(self._fence)
            if self.leadership.is_due:
                self._renew()
            await self._measure(self._fence)  # nobody waits for it: until then all is granted
            return

    # -- appending ----------------------------------------------------------------------------------

    def append(self, batch: Batch, expected: int, *_: object, **__: object) -> bool:
        """Append one batch; `on_synced(batch.number)` follows. The servers are too far away to be waited for."""
        assert batch.number >= self.next_number, "numbers grow"
        assert not self._under_way, "one batch at a time"
        if self._appender.is_closed:
            return False
        if expected != self.next_number - 1:  # the stream has the fence; this one is our own
            what = f"batch {expected} was expected to be the last, and {self.next_number - 1} is"
            self._appender.is_closed = True
            self._soon(partial(self._on_failed, AnotherLeads(self.name, 0, what)))
            return False
        self._under_way = True
        self.next_number = batch.number + 1
        self._stamp = batch.now_ms, batch.unix_ms
        self.history.number = batch.number
        parts = self._encoded(batch.records, Kind.DATA, batch.number, batch.now_ms, batch.unix_ms)
        self._under_way_bytes = sum(map(len, parts))
        self._appender.put(parts, partial(self._synced, batch.number))
        return False

    @property
    def position(self) -> int:
        """The sequence of the last entry that was appended here; 0: none was."""
        return self._fence.position if self._fence is not None else 0

    def append_all(self, batches: Sequence[Batch], done: Callable[[int], object]) -> None:
        """Append batches as one, at most 500 and 16 MiB of them, for whoever moves a log.

        `done` follows, with their bytes.
        """
        parts: list[bytes] = []
        for batch in batches:
            number, self.next_number = self.next_number, self.next_number + 1
            self.history.number = number
            parts += self._encoded(batch.records, Kind.DATA, number, batch.now_ms, batch.unix_ms)
        self._appender.put(parts, done)

    def state(self, more: str, done: Callable[[int], object]) -> None:
        """Append a checkpoint that says `more` of the log; `done` follows."""
        says = Statement(FORMAT_VERSION, self.history.log_start, self.session_key, more)
        number = self.history.number
        self._appender.put(self._encoded([says.record()], Kind.MARKER, number, *self._stamp), done)

    def _stored(self, first: int, parts: list[bytes]) -> None:
        self._appended_s = monotonic()
        self._landed_at = self.history.note(first, parts)
        self.history.flush()
        assert self._fence is not None
        self.leadership.acked(self._fence.sent_s)
        self._stalled.goes_on()
        self._space.appended(sum(map(len, parts)))

    def _claim_again(self) -> bytes:
        """Return an epoch record of a broker that leads, and has to find out what an append came to."""
        return self._state(Kind.SEGMENT, 1, self.history.log_start)[0]

    def _synced(self, number: int, size_bytes: int) -> None:
        assert self._fence is not None
        self.history.stretches.add(self._fence.position, size_bytes, number)
        self._under_way, self._under_way_bytes = False, 0
        self.last_place = self._landed_at
        self._on_synced(number)

    def _fail(self, error: BaseException) -> None:
        if not self._appender.is_closed:
            self._appender.is_closed = True
            if isinstance(error, Overtaken):
                error = AnotherLeads(self.name, self.position, error.what)
            self._on_failed(error)

    def _soon(self, callback: Callable[[], object]) -> None:
        assert self._loop is not None, "not led"
        self._loop.call_soon(callback)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    # -- whether it goes on -------------------------------------------------------------------------

    def _stalls(self, reason: str) -> None:
        if self._loop is None and self._taking is not None:
            self._taking.reason = reason
        self._stalled.waits(reason)

    def _renew(self) -> None:
        """Append an entry that says nothing, to know whether this broker still leads."""
        if self._appender.is_at_rest and not self._appender.is_closed:
            history = self.history
            parts = self._state(Kind.MARKER, 0, history.log_start)
            self._appender.put(parts, lambda size: history.stretches.add(self.position, size, None))

    def _look(self) -> None:
        """Now and then: a broker that has nothing to append finds out all the same that it does not lead."""
        if self._appender.is_closed or self._loop is None:
            return
        if self.leadership.is_due:
            self._renew()
        if (
            self._appender.is_at_rest
            and self._fence is not None
            and monotonic() - self._appended_s > LOOK_S
        ):
            self._spawn(self._look_behind(self._fence))
            if monotonic() - self._asked_info_s > (LOOK_S if self._space.is_limited else INFO_S):
                self._spawn(self._measure(self._fence))
        self._loop.call_later(LOOK_S, self._look)

    def _beat(self) -> None:
        """Say that this broker leads, as often as those that stand by expect it."""
        if self._appender.is_closed or self._loop is None:
            return
        self.leadership.on_news()
        if self._appender.is_at_rest:
            self.leadership.rests()
        if self._fence is not None and not self.leadership.is_given_up:
            word = replace(self._word, end=self._fence.position, beside=self._fence.stream.beside)
            self._spawn(self._fence.stream.say(word.encode()))
        self._loop.call_later(BEAT_S, self._beat)

    def _stay_apart(self) -> None:
        if self._appender.is_closed or self._loop is None or self._fence is None:
            return
        self._spawn(self._look_around(self._fence.stream))
        self._loop.call_later(APART_S, self._stay_apart)

    async def _look_around(self, stream: Stream) -> None:
        another = self._taking.beside_another if self._taking is not None else ""
        self._space.info = await keep_apart(stream, another) or self._space.info

    async def _look_behind(self, fence: Fence) -> None:
        what = await fence.look_behind()
        if what and self._appender.is_at_rest:
            self._fail(AnotherLeads(self.name, fence.position, what))

    def replication(self) -> Replication:
        """Return how the log is."""
        lag = self._taking.lag if self._taking is not None else NO_LAG
        epoch = self.epoch or self.history.epoch
        return self._space.replication(epoch, lag, self._stalled.lasted_s)

    # -- its length ---------------------------------------------------------------------------------

    def room_for(self, size_bytes: int) -> Room:
        """Grant room for records of `size_bytes`, if the stream has it beside what settlements and copies need."""
        if self._space.has_room(self._under_way_bytes + size_bytes):
            return Room.GRANTED
        self._is_full = True
        return Room.REFUSED

    async def _measure(self, fence: Fence) -> None:
        """Ask how full the stream is, and say so if there is room again."""
        self._asked_info_s = monotonic()
        try:
            self._space.told(await fence.stream.info())
        except StreamAway:
            return
        if (
            self._is_full
            and not self._appender.is_closed
            and self._space.has_room(self._under_way_bytes)
        ):
            self._is_full = False
            self._on_room()

    @property
    def disk_bytes(self) -> int:
        """The bytes of the log that one server has."""
        stretches = self.history.stretches
        return stretches.sealed_bytes + stretches.size_bytes

    @property
    def oldest_upto(self) -> int | None:
        """The newest batch in the oldest stretch; None while that one is still written."""
        sealed = self.history.stretches.sealed
        return sealed[0].upto if sealed else None

    def trim(self, upto: int, now_ms: int, unix_ms: int, done: Callable[[], None]) -> None:
        """Append a checkpoint behind which nobody needs the stretches up to this batch, then have them purged."""
        history = self.history
        history.log_start = history.stretches.give_up(upto)
        self._stamp = now_ms, unix_ms
        parts = self._state(Kind.MARKER, 0, history.log_start)
        self._appender.put(parts, partial(self._trimmed, history.log_start, done))

    def _trimmed(self, log_start: int, done: Callable[[], None], size_bytes: int) -> None:
        assert self._fence is not None
        self.history.stretches.add(self._fence.position, size_bytes, None)
        self.back.give_up(log_start)
        self._spawn(self._purge(self._fence, log_start, done))

    async def _purge(self, fence: Fence, log_start: int, done: Callable[[], None]) -> None:
        # Behind the end the numbering would jump; what is not purged now goes with the next stretch.
        if log_start <= fence.position and not self._appender.is_closed:
            try:
                await fence.stream.purge(log_start)
                await self._measure(fence)
            except StreamAway as away:
                events.warning("trim_failed", stream=OwnText(self.name), text=OwnText(away))
        done()

    # -- the end ------------------------------------------------------------------------------------

    def close(self, now_ms: int, unix_ms: int) -> None:
        """Append the footer of a clean stop and leave; waits for it only where another thread has the loop."""
        loop = self._loop
        assert loop is not None, "not led"
        self._stamp = now_ms, unix_ms
        if threading.get_ident() == self._thread:
            self._appender.is_closed = True
            if self._taking is not None:
                self._taking.hand_over()
            return  # before the port was open: the next start finds the log as after a crash, and nothing in it
        done = asyncio.run_coroutine_threadsafe(self._close(), loop)
        try:
            done.result(CLOSE_S)
        except TimeoutError:
            events.warning("log_stalled", stream=OwnText(self.name), text="no footer was written")
        self.back.close()

    async def abandon(self) -> None:
        """Let go of everything without a footer, as a crash would, once what is under way has its answer."""
        self._appender.is_closed = True
        if self._taking is not None:
            self._taking.hand_over()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._appender.answered()
        if self._fence is not None:
            await self._fence.stream.close()

    async def _close(self) -> None:
        written = asyncio.Event()
        self._appender.put(
            self._state(Kind.FOOTER, 0, self.history.log_start), lambda size: written.set()
        )
        await written.wait()
        self._appender.is_closed = True
        if self._fence is not None:
            stream = self._fence.stream
            with suppress(TimeoutError):
                last = replace(self._word, is_last=True, beside=stream.beside).encode()
                await asyncio.wait_for(stream.say(last), LAST_WORD_S)
            await stream.close()


def _not_led(*_: object) -> None:
    raise AssertionError("the log is not led")
