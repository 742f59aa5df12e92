"""Who may append to the log: the fence, and what becomes of an append without an answer.

Here are the rules that make it safe, and nothing else; the bytes of entries come in. They are:

- Each append expects the sequence of the last one that was acked here, and there is one at a time.
- Leading begins with an epoch record. It is the one append whose expectation may be taken out of a refusal: it
  claims whatever came before. Once it is acked nobody with an older position can append any more.
- Afterwards a refusal means deposed. (One with a *lower* number than our own does not: a server that has just
  begun to lead the stream may not know yet what it has. Nothing was stored, so the append may be sent again.)
- What an append without an answer came to is found out behind an epoch record of our own, which nothing can follow
  that was sent before it. And since such a record deposes whoever leads, it is sent only when all that stands
  behind our position was read, and is our own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from minibrokerd.replicated.stream import (
    Acked,
    EntriesGone,
    Entry,
    NoRoom,
    Outcome,
    Refused,
    Stream,
    StreamAway,
    Unknown,
)

READ_BYTES: Final = 8 * 1024 * 1024
PAUSE_S: Final = 0.05  # between two questions while nobody leads the stream
# After an append that somebody may have taken: each one that a server took without acking prolongs its way back.
SLOW_PAUSE_S: Final = 1.0
MOST_PAUSE_S: Final = 5.0


class Overtaken(Exception):
    """Somebody else appended behind our position: nothing more may be confirmed. `what` says what was seen."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Fence:
    """The position of one broker in a stream, and the appends that keep to it. One call at a time."""

    def __init__(
        self,
        stream: Stream,
        is_own: Callable[[Entry], bool],
        pause: Callable[[float], Awaitable[object]],
        on_stall: Callable[[str], object] = lambda reason: None,
        clock_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`is_own` tells an epoch record of this run of the broker; `on_stall` hears why an append waits."""
        self.stream = stream
        self.position = 0  # of the last append that was acked here
        self.claims = 0  # epoch records of ours behind the one by which leading began
        self._is_own = is_own
        self._pause = pause
        self._on_stall = on_stall
        self._clock_s = clock_s
        self.sent_s = 0.0  # when the last append was sent; after an ack: that one

    # -- a start ------------------------------------------------------------------------------------

    async def claim(
        self,
        record: bytes,
        expected: int,
        gives_way: Callable[[int], Awaitable[bool]] | None = None,
    ) -> int:
        """Append an epoch record behind whatever there is; return its sequence.

        From then on nobody who led before can append. `expected` is where the end is thought to be. When there is
        more, `gives_way` is told up to where; it says whether to leave it to another one, and then this returns 0.
        """
        pause_s, open_upto = PAUSE_S, -1
        while True:
            self.sent_s = self._clock_s()
            outcome = await self.stream.append([record], expected, is_epoch=True)
            if isinstance(outcome, Acked):
                self.position = outcome.sequence
                if expected >= open_upto:
                    return outcome.sequence
                # One without an answer, behind what was only proposed, may still come to fit behind this one.
                expected = outcome.sequence
                continue
            if isinstance(outcome, Refused):
                if gives_way is not None and await gives_way(outcome.last):
                    return 0
                expected = outcome.last
                continue
            open_upto = max(open_upto, expected)
            pause_s = await self._wait(outcome, pause_s)

    async def read(self, first: int, upto: int) -> AsyncIterator[list[Entry]]:
        """Yield the entries from `first` to `upto`, which are there, from whichever replica has them.

        Raises:
            EntriesGone: one of them was purged.
        """
        while first <= upto:
            found = await self._some(first)
            if found:
                some = [entry for entry in found if entry.sequence <= upto]
                first = some[-1].sequence + 1
                yield some
            else:
                await self._pause(PAUSE_S)

    async def _some(self, first: int) -> list[Entry]:
        try:
            return await self.stream.read(first, READ_BYTES)
        except StreamAway as away:
            self._on_stall(str(away))
            return []

    # -- leading ------------------------------------------------------------------------------------

    def begin(self, parts: Sequence[bytes], told: Callable[[Outcome], object]) -> None:
        """Append behind our position, without waiting: `told(outcome)` follows.

        That one asks `was_acked` what it means; if it was not, `append` goes on from there, which may take long.
        """
        self.sent_s = self._clock_s()
        self.stream.begin(parts, self.position, told)

    def was_acked(self, outcome: Outcome) -> bool:
        """Return whether the append that was begun is stored for certain."""
        if isinstance(outcome, Acked):
            self.position = outcome.sequence
            return True
        return False

    async def append(
        self,
        parts: Sequence[bytes],
        epoch_record: Callable[[], bytes],
        outcome: Outcome | None = None,
    ) -> int:
        """Append behind our position; return when that is acked, the sequence of the first part.

        `epoch_record` makes the body of an epoch record, in case that one is needed to find out. `outcome` is what
        was told of these parts, if they were begun.

        Raises:
            Overtaken: another broker leads; whether this was stored is not known, and need not be.
        """
        pause_s = PAUSE_S
        while True:
            first = self.position + 1
            if outcome is None:
                self.sent_s = self._clock_s()
                outcome = await self.stream.append(parts, self.position)
            if self.was_acked(outcome):
                return first
            if isinstance(outcome, Refused) and outcome.last > self.position:
                raise Overtaken(f"an append was refused, entry {outcome.last} is there")
            if isinstance(outcome, Unknown):
                await self._wait(outcome, pause_s)
                try:
                    if await self._was_stored(parts, epoch_record):
                        return first
                except EntriesGone as gone:
                    raise Overtaken(f"entry {gone.wanted} was trimmed already") from gone
            else:
                pause_s = await self._wait(outcome, pause_s)
            outcome = None

    async def look_behind(self) -> str:
        """Return what says that another broker leads; empty: nothing does, as far as some server knows."""
        position = self.position
        try:
            found = await self.stream.read(position + 1, 1)
        except StreamAway:
            return ""  # an append finds out what that means
        except EntriesGone as gone:
            return f"entry {gone.first} is there" if self.position == position else ""
        return "an entry is there" if found and self.position == position else ""

    async def _was_stored(self, parts: Sequence[bytes], epoch_record: Callable[[], bytes]) -> bool:
        """Find out what an append came to that had no answer: whether it is there, or can never come."""
        before, expected, pause_s = self.position, self.position, SLOW_PAUSE_S
        ours = list(parts)
        while True:
            await self._until_led()
            self.sent_s = self._clock_s()
            outcome = await self.stream.append([epoch_record()], expected, is_epoch=True)
            if isinstance(outcome, Acked):
                break
            if isinstance(outcome, Refused):
                expected = await self._own_end(before, ours, outcome.last)
                if expected < outcome.last:
                    await self._pause(PAUSE_S)
            else:
                pause_s = await self._wait(outcome, pause_s)
        between: list[Entry] = []
        async for some in self.read(before + 1, outcome.sequence):
            between += some
        self._check_own(before, ours, between)
        self.position = outcome.sequence
        self.claims += sum(entry.is_epoch for entry in between)
        return between[0].body == ours[0]

    async def _own_end(self, before: int, ours: list[bytes], last: int) -> int:
        """Return how far everything behind `before` can be read and is our own; Overtaken: it is not."""
        found: list[Entry] = []
        while before + len(found) < last:
            try:
                some = await self._some(before + len(found) + 1)
            except EntriesGone as gone:
                raise Overtaken(f"entry {gone.wanted} was trimmed already") from gone
            if not some:
                break
            found += some
        self._check_own(before, ours, found)
        return before + len(found)

    def _check_own(self, before: int, ours: list[bytes], found: Sequence[Entry]) -> None:
        rest = ours if found and not found[0].is_epoch else []
        for index, entry in enumerate(found):
            is_own = entry.body == rest[index] if index < len(rest) else self._is_own(entry)
            if not is_own:
                raise Overtaken(f"entry {before + 1 + index} is another broker's")

    async def _until_led(self) -> None:
        """Return when some server says that the stream has a leader: nobody else should be asked to store."""
        pause_s = PAUSE_S
        while True:
            try:
                if (await self.stream.info()).leader:
                    return
                self._on_stall("the stream has no leader")
            except StreamAway as away:
                self._on_stall(str(away))
            await self._pause(pause_s)
            pause_s = min(2 * pause_s, 0.25)

    async def _wait(self, outcome: Outcome, pause_s: float) -> float:
        """Wait before the next append; return how long to wait after that one."""
        assert isinstance(outcome, Unknown | NoRoom | Refused)
        if isinstance(outcome, Refused):
            self._on_stall("a server leads the stream that has not read all of it yet")
            await self._pause(PAUSE_S)
            return pause_s
        self._on_stall(outcome.reason)
        if isinstance(outcome, Unknown) and not outcome.is_led:
            await self._pause(PAUSE_S)
            return pause_s
        await self._pause(pause_s)
        return min(2 * max(pause_s, SLOW_PAUSE_S / 2), MOST_PAUSE_S)
