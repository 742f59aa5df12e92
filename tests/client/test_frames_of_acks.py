"""How many frames and writes a consumer needs that acks each message: counted, in virtual time, in one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from minibroker.sync import keeper as keepers
from minibroker.sync.keeper import SOON_S
from minibroker.testing import SyncMemoryBroker

MESSAGES = 1_000
EACH_S = 0.00002  # of virtual time, which a message takes


class Watched:
    """A link that counts what is written through it."""

    def __init__(self, link: Any) -> None:
        self._link = link
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def write(self, data: bytes) -> None:
        self.writes += 1
        self._link.write(data)


class Turns:
    """The bell of a keeper: what the application does happens while the keeper waits for it."""

    def __init__(self) -> None:
        self.work: Callable[[], bool] = lambda: False
        self._rings = False
        self.now_s = 0.0
        self.waits = 0

    def clock(self) -> float:
        return self.now_s

    def ring(self) -> None:
        self._rings = True

    def wait(self, timeout_s: float) -> None:
        self.waits += 1
        until_s = self.now_s + timeout_s
        while not self._rings and self.now_s < until_s and self.work():
            self.now_s += EACH_S
        self._rings = False

    def close(self) -> None:
        """There is no descriptor."""


@contextmanager
def consuming(
    prefetch: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Turns, Any, Iterator[Any], Callable[[], None]]]:
    """Yield turns, driver, messages, and what a keeper's thread would run."""
    started: list[Callable[[], None]] = []
    monkeypatch.setattr(keepers, "start_thread", started.append)
    with SyncMemoryBroker(stopped=True) as broker:
        queue = broker.queue("q")
        queue.publish_many([b"x"] * count)
        driver: Any = broker._driver
        with queue.consume(prefetch=prefetch) as messages:
            turns = Turns()
            driver.keeper._bell.close()
            driver.keeper._bell, driver.clock, driver.last_write = turns, turns.clock, 0.0
            driver.link = Watched(driver.link)
            yield turns, driver, iter(messages), started[0]


def blocking_counts(prefetch: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int, int]:
    """Consume and ack `MESSAGES`; return frames of settlements, writes, turns of the keeper."""
    with consuming(prefetch, MESSAGES, monkeypatch) as (turns, driver, messages, run):
        left = MESSAGES

        def work() -> bool:
            nonlocal left
            if left:
                left -= 1
                next(messages).ack()
            if not left:
                driver.keeper.stop()
            return left > 0

        turns.work = work
        first = driver.session.window.next_sequence
        run()
        return driver.session.window.next_sequence - first, driver.link.writes, turns.waits


# Half a window each, and what waits for a millisecond leaves with the next begin.
BLOCKING = {1: 1_000, 8: 250, 32: 62, 1_000: 19}
TURNS = 5  # of the keeper: one in 5 ms, whatever the messages are


@pytest.mark.parametrize("prefetch", BLOCKING)
def test_a_blocking_consumer_settles_by_half_windows(
    prefetch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, writes, turns = blocking_counts(prefetch, monkeypatch)
    assert (frames, writes) == (BLOCKING[prefetch], BLOCKING[prefetch])
    assert turns <= TURNS


def test_an_ack_that_stays_alone_is_written_by_the_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    with consuming(32, 1, monkeypatch) as (turns, driver, messages, run):
        since: list[float] = []

        def work() -> bool:
            if not since:
                next(messages).ack()
                since.append(turns.now_s)
            elif not driver.session.owing:
                driver.keeper.stop()
                return False
            return True

        turns.work = work
        run()
        assert SOON_S - EACH_S <= turns.now_s - since[0] <= SOON_S + 2 * EACH_S
