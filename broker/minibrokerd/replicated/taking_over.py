"""How a broker comes to lead: it reads the log, claims it, and reads the rest up to its claim.

That is done before the port opens and may take a while, so it has a thread, a loop and a connection of its own;
whoever starts takes the batches out of a queue, while more are read. A broker that stands by goes on reading until
it may lead, so that the rest is short. It claims behind what it has read, and leaves it to another one who was
faster. From its claim on it says that it leads, for whoever starts may be busy with what was read.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from enum import Enum
from typing import Any, Final, NamedTuple, TypeVar

from minibrokerd.log.seam import Batch
from minibrokerd.process.logs import OwnText, events
from minibrokerd.replicated.entries import run_of
from minibrokerd.replicated.failures import HalfMoved, StreamUnreachable, Trimmed
from minibrokerd.replicated.history import History
from minibrokerd.replicated.leading import READ_BYTES, Fence
from minibrokerd.replicated.standing_by import BEAT_S, Standing
from minibrokerd.replicated.stream import EntriesGone, Entry, Stream, StreamAway

READ_AHEAD: Final = 4  # answers to reads that wait to be replayed
FULL_S: Final = 0.002  # until it is tried again to hand over one more
# At the end of what could be read, before the claim: another replica may have more.
LOOKS_AGAIN: Final = 3
TURN_S: Final = 0.05  # that whoever starts waits for batches, before it looks at what else there is
LOOK_AGAIN_S: Final = 0.01
FOLLOW_S: Final = 0.1  # between two looks at the end of the log, while another one leads
SLICE_S: Final = 0.2  # between two looks for a stop
# An election takes up to 9 s, and a server that was cut off 20 s to notice.
PATIENCE_S: Final = 30.0

REST_S: Final = 5.0  # that whoever reads anew waits until nothing more is taken into the history

NO_LAG: Final = (0, 0.0)

OpenStream = Callable[[], Awaitable[Stream]]
Answer = TypeVar("Answer")


class Found(NamedTuple):
    """Batches of data that were read, up to an entry; behind them nobody needs what is below `log_start`."""

    batches: list[Batch]
    upto: int
    log_start: int


class Mark(Enum):
    """What comes between the batches."""

    AGAIN = "what came before counts no more: some of what followed was trimmed before it was read"
    CLAIMED = "the log is claimed: the rest follows"
    END = "that was all"


class TakeOver:
    """One reading of the log that ends in leading it."""

    def __init__(
        self,
        history: History,
        open_stream: OpenStream,
        make_fence: Callable[[Stream], Fence],
        claim: Callable[[], bytes],
        patience_s: float = PATIENCE_S,
        *,
        standing: Standing | None = None,
        word: bytes = b"",
        on_start: Callable[[int], object] = lambda log_start: None,
    ) -> None:
        """`claim` makes the epoch record, when all that can be read was read.

        Where nothing goes on for `patience_s` it gives up. With `standing` it waits until it may lead; it says
        `word` once it does. `on_start` is told where the log starts, by whoever has taken all batches before that.
        """
        self._history = history
        self._open_stream = open_stream
        self._make_fence = make_fence
        self._claim = claim
        self.standing = standing
        self._word = word
        self._on_start = on_start
        self._read: queue.Queue[Found | Mark | BaseException] = queue.Queue(READ_AHEAD)
        self._news: Callable[[], object] = lambda: None
        self._is_begun = self._is_over = self._is_handed_over = self._is_half_told = False
        self._patience_s = patience_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stream: Stream | None = None
        self._task: asyncio.Task[None] | None = None
        self._at_rest = threading.Event()
        self.is_spent = False  # its batches were asked for: whoever asks again reads anew
        self.position = 0  # of our epoch record, at the end
        self.claimed_s = 0.0  # when that was sent, by the clock of the fence
        self.reason = ""  # why it waits
        self.why = ""  # why it claimed, where it stood by; see `Standing.why`
        self.replayed_to = 0  # the last entry that has its part in the state of whoever follows
        self.end = -1  # where the stream is thought to end; -1: nobody was asked yet

    @property
    def lag(self) -> tuple[int, float]:
        """How many entries are there that were not replayed yet, and for how long (s), while another one leads."""
        if self.standing is None or self.position:
            return NO_LAG
        return self.standing.lag(self.replayed_to)

    @property
    def beside_another(self) -> str:
        """The server beside whoever led before, and may lead next; empty: it is not known."""
        word = self.standing.word if self.standing is not None else None
        return word.beside if word is not None else ""

    # -- what is taken ------------------------------------------------------------------------------

    async def following(
        self, is_stopped: Callable[[], object] = lambda: False
    ) -> AsyncIterator[list[Batch] | None]:
        """Yield batches of data as they come, while another broker leads. At its end the log is claimed.

        None: what came before counts no more. Ends early when `is_stopped`; then the log is as it was.

        Raises:
            LogError: see `failures.py`.
        """
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        self._news = lambda: loop.is_closed() or loop.call_soon_threadsafe(news.set)
        self._begin()
        while not is_stopped():
            try:
                found = self._read.get_nowait()
            except queue.Empty:
                news.clear()
                if self._read.empty():
                    await _wait(news, SLICE_S)
                continue
            if isinstance(found, BaseException):
                raise found
            if found is Mark.CLAIMED:
                return
            if isinstance(found, Mark):
                yield None
                continue
            yield found.batches
            self._is_taken(found)
        self._is_over = True

    def batches(self) -> Iterator[Batch | None]:
        """Yield the batches of data, oldest first, and now and then None while none is there.

        At its end the log is led.

        Raises:
            LogError: see `failures.py`.
        """
        self._begin()
        self.is_spent = True
        try:
            while True:
                try:
                    found = self._read.get(timeout=TURN_S)
                except queue.Empty:
                    yield None
                    continue
                if found is Mark.END:
                    return
                if isinstance(found, BaseException):
                    raise found
                if isinstance(found, Found):
                    yield from found.batches
                    self._is_taken(found)
        except BaseException:
            self.hand_over()
            raise
        finally:
            self._is_over = True

    def _is_taken(self, found: Found) -> None:
        self.replayed_to = found.upto
        self._on_start(found.log_start)

    def ask(self, question: Callable[[Stream], Coroutine[Any, Any, Answer]]) -> Answer:
        """Have something asked by the connection that reads the log; blocks whoever replays.

        Raises:
            StreamUnreachable: there was no answer for as long as a start has patience.
        """
        loop, stream = self._loop, self._stream
        assert loop is not None, "it is asked about what was read"
        assert stream is not None, "it is asked about what was read"
        answer = asyncio.run_coroutine_threadsafe(question(stream), loop)
        try:
            return answer.result(self._patience_s)
        except TimeoutError as error:
            answer.cancel()
            raise self._unreachable(stream) from error

    def hand_over(self) -> None:
        """Say nothing more of who leads: the log does that itself."""
        self._is_handed_over = True

    def let_go(self) -> None:
        """End it early: its history is somebody else's from then on, and it claims nothing any more."""
        self._is_over = True
        self.hand_over()
        if self._loop is None or self._task is None:
            return
        with suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._rest()
        with suppress(queue.Empty):  # its thread may wait for room
            while True:
                self._read.get_nowait()

    def _rest(self) -> None:
        self._at_rest.wait(REST_S)

    def _begin(self) -> None:
        if not self._is_begun:
            self._is_begun = True
            threading.Thread(target=self._run, name="minibroker-log", daemon=True).start()

    # -- what is read, in a thread of its own --------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self.work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the batches are waited for
            if not self._is_over:
                self._read.put(error)
                self._news()

    async def work(self) -> None:
        """Read, claim, and read the rest; the thread does nothing else."""
        self._is_begun = True
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        stream = self._stream = await self._open_stream()
        try:
            fence = self._make_fence(stream)
            if self.standing is None:
                await self._read_what_is_there(stream)
                # Before the claim: whoever moves the log here leads the stream, and is not to be deposed.
                self._history.see_that_it_is_here()
                await self._lead(stream, fence)
            else:
                await stream.hear(self.standing.hear)
                while not (self.position or self._is_over):
                    await self._follow(stream, self.standing)
                    await self._try_to_lead(fence)
            if self.position:
                await asyncio.gather(self._finish(stream, fence), self._say_so(stream))
        finally:
            self._at_rest.set()
            await stream.close()

    async def _lead(self, stream: Stream, fence: Fence) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                end = max(self.end, self._history.read_to)
                self.position = await fence.claim(self._claim(), end)
                self.claimed_s = fence.sent_s
        except TimeoutError as error:
            raise self._unreachable(stream) from error

    async def _try_to_lead(self, fence: Fence) -> None:
        """Claim behind what was read, unless somebody else does."""
        if self._is_over:
            return
        assert self.standing is not None
        led_by, known, why = self._history.owner_bits, fence.stream, self.standing.why

        async def gives_way(last: int) -> bool:
            """Read on; say whether another broker has claimed, or what is there cannot be read."""
            for _ in range(LOOKS_AGAIN):
                if self._history.read_to >= last:
                    break
                try:
                    await self._read_some(known)
                except (StreamAway, EntriesGone):
                    return True
                await asyncio.sleep(LOOK_AGAIN_S)
            return self._history.read_to < last or self._history.owner_bits != led_by

        try:
            async with asyncio.timeout(self._patience_s):
                position = await fence.claim(self._claim(), self._history.read_to, gives_way)
        except TimeoutError:
            return
        if position:
            self.position, self.why, self.claimed_s = position, why, fence.sent_s
            await self._put(Mark.CLAIMED)

    async def _finish(self, stream: Stream, fence: Fence) -> None:
        try:
            await self._read_the_rest(fence)
        except TimeoutError as error:
            raise self._unreachable(stream) from error
        except EntriesGone as gone:
            raise Trimmed(stream.name, gone.wanted) from gone
        self._history.end()
        await self._put(Mark.END)

    def _unreachable(self, stream: Stream) -> StreamUnreachable:
        advice = "see that most servers of NATS run and reach each other, then start again"
        why = f"nothing is stored there ({self.reason or 'no answer'})"
        return StreamUnreachable(stream.name, why, advice)

    async def _say_so(self, stream: Stream) -> None:
        """Say that this broker leads until the log says so itself."""
        for _ in range(int(self._patience_s / BEAT_S)):
            if self._is_handed_over:
                return
            await stream.say(self._word)
            await asyncio.sleep(BEAT_S)

    async def _read_the_rest(self, fence: Fence) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._patience_s) as patience:
            async for entries in fence.read(self._history.read_to + 1, self.position):
                await self._take(entries)
                patience.reschedule(loop.time() + self._patience_s)

    async def _read_what_is_there(self, stream: Stream) -> None:
        """Read up to the end, about: whoever leads may go on. It makes the time between two leaders short."""
        looks = 0
        self.end = await _end(stream)
        while looks < LOOKS_AGAIN and not self._is_over:
            try:
                is_more = await self._read_some(stream)
            except StreamAway:
                is_more = False
            except EntriesGone as gone:
                raise Trimmed(stream.name, gone.wanted) from gone
            if is_more:
                looks = 0
            elif self._history.read_to >= self.end:
                break
            else:
                looks += 1
                await asyncio.sleep(LOOK_AGAIN_S)
        self._history.begin_if_empty()

    async def _follow(self, stream: Stream, standing: Standing) -> None:
        """Read as long as another broker leads."""
        self.end = await _end(stream)
        while not self._is_over:
            try:
                has_all = standing.has_all(self._history.read_to)
                if not has_all and await self._read_some(stream):
                    continue
            except StreamAway:
                standing.is_deaf()
            except EntriesGone:
                self._history.begin_again()
                await self._put(Mark.AGAIN)
                continue
            if not stream.is_connected:
                standing.is_deaf()
            elif self._is_on_its_way():
                standing.is_deaf()  # what is here is a part of a log, whoever is silent
            elif standing.may_lead:
                break
            await _wait(standing.news, FOLLOW_S)
        self._history.begin_if_empty()

    def _is_on_its_way(self) -> bool:
        """Return whether a log is being moved here; it is said once. LogMoved: it is elsewhere."""
        try:
            self._history.see_that_it_is_here()
        except HalfMoved as half:
            if not self._is_half_told:
                self._is_half_told = True
                events.info(
                    "waits_for_move", stream=OwnText(half.stream), source=OwnText(half.source)
                )
            return True
        return False

    async def _read_some(self, stream: Stream) -> bool:
        """Read on from where the history ends; return whether there was anything.

        Raises:
            StreamAway: no answer.
            EntriesGone: something was trimmed that followed on what is known.
        """
        history = self._history
        first = history.read_to + 1
        try:
            entries = await stream.read(first, READ_BYTES)
        except EntriesGone as gone:
            if history.is_begun:
                raise
            history.begin(gone.first)
            return True
        if entries:
            history.begin_if_empty()
            await self._take(entries)
        return bool(entries)

    async def _take(self, entries: list[Entry]) -> None:
        history = self._history
        led_by = history.owner_bits
        found = [batch for entry in entries if (batch := history.take(entry)) is not None]
        if self.standing is not None and history.owner_bits not in (None, led_by):
            self.standing.is_claimed(run_of(history.owner_bits))
        history.flush()
        await self._put(Found(found, history.read_to, history.log_start))

    async def _put(self, found: Found | Mark) -> None:
        """Hand over; meanwhile the loop goes on, for there is more to hear."""
        while not self._is_over:
            try:
                self._read.put_nowait(found)
                self._news()
                return
            except queue.Full:
                await asyncio.sleep(FULL_S)


async def _wait(event: asyncio.Event, most_s: float) -> None:
    try:
        async with asyncio.timeout(most_s):
            await event.wait()
    except TimeoutError:
        pass


async def _end(stream: Stream) -> int:
    try:
        return (await stream.info()).last
    except StreamAway:
        return 0
