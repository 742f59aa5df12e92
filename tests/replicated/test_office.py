"""How long a broker on the simulated stream may act as the one that leads, by a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from log_kinds import Hand, InStream

from minibroker.contract import limits
from minibrokerd.replicated.failures import LoginRefused
from minibrokerd.replicated.log import JetStreamLog
from minibrokerd.replicated.office import RENEW_S, SAID_S, SURE_S
from minibrokerd.replicated.stream import Acked, Outcome, Stream
from minibrokerd.replicated.words import decode


class Time:
    """A clock."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    """The clock of the log and of its office; pauses take ticks."""
    clock = Time()
    monkeypatch.setattr("minibrokerd.replicated.log.monotonic", clock)
    for name in ("PAUSE_S", "SLOW_PAUSE_S", "MOST_PAUSE_S"):
        monkeypatch.setattr(f"minibrokerd.replicated.leading.{name}", 0.0)
    return clock


class Leading(Hand):
    """A log that leads."""

    log: JetStreamLog

    def __init__(self, tmp_path: Path, clock: Time) -> None:
        kind = InStream(tmp_path)
        self.stream = kind.stream
        super().__init__(kind)
        self.clock = clock
        self.said: list[bool] = []  # whether it was the last word
        self.lead()
        self.stream.ears.append(lambda word: self.said.append(decode(word).is_last))

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the loop turn until something holds."""
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - most of what is looked at tells nobody
                await asyncio.sleep(0)

    async def turns(self, count: int = 200) -> None:
        """Let the loop turn."""
        for _ in range(count):
            await asyncio.sleep(0)


@pytest.fixture
async def leading(tmp_path: Path, clock: Time) -> Leading:
    return Leading(tmp_path, clock)


def test_it_ends_before_another_leader_hands_out_what_this_one_did() -> None:
    """A client notices within a second that its connection is gone, and comes to the other one."""
    assert limits.RESUME_WAIT_MS / 1_000 - SURE_S >= 1.5
    assert RENEW_S <= SURE_S / 2
    assert SAID_S > 9, "an election of the stream is no reason for another broker"


async def test_it_counts_from_when_an_append_was_sent(leading: Leading, clock: Time) -> None:
    """What was acked late says nothing of the time since."""
    office = leading.log.leadership
    await leading.append(b"a")
    clock.now_s += SURE_S
    assert not office.is_over
    clock.now_s += 0.1
    assert office.is_over
    sending = asyncio.ensure_future(leading.append(b"b"))
    await leading.until(lambda: leading.stream.flight)
    clock.now_s += SURE_S + 1
    await sending
    assert office.is_over
    await leading.append(b"c")
    assert not office.is_over
    leading.crash()


async def test_who_has_clients_and_nothing_to_append_finds_out_all_the_same(
    leading: Leading, clock: Time
) -> None:
    log, office = leading.log, leading.log.leadership
    await leading.append(b"a")
    position = log.position
    clock.now_s += RENEW_S + 0.1
    log._look()
    await leading.turns()
    assert log.position == position, "nobody goes by what it says"
    office.is_watched = lambda: True
    log._look()
    await leading.until(lambda: log.position == position + 1)
    clock.now_s += RENEW_S - 0.1
    log._look()
    await leading.turns()
    assert log.position == position + 1
    again = leading.again().recover()
    assert again.tails == [b"a"], "what was appended says nothing"
    leading.crash()


async def test_who_waits_for_it_is_told(leading: Leading, clock: Time) -> None:
    office = leading.log.leadership
    await leading.append(b"a")
    clock.now_s += SURE_S + 1
    told: list[bool] = []
    office.on_news = lambda: told.append(office.is_over)
    leading.log._beat()
    assert told == [True]
    office.renew()
    await leading.until(lambda: told[-1] is False)
    leading.crash()


async def test_who_cannot_append_for_longer_than_an_election_takes_says_no_more_that_it_leads(
    leading: Leading, clock: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may reach whoever stands by, and yet not the server that leads the stream."""
    await leading.append(b"a")
    assert leading.log._fence is not None
    told: list[Callable[[Outcome], object]] = []
    monkeypatch.setattr(leading.log._fence, "begin", lambda parts, tell: told.append(tell))
    leading.log._renew()
    clock.now_s += SAID_S - 0.1
    leading.log._beat()
    await leading.until(lambda: leading.said)
    await leading.turns()
    clock.now_s += 0.2
    leading.said.clear()
    leading.log._beat()
    await leading.turns()
    assert leading.said == []
    told[0](Acked(leading.log.position + 1))
    leading.log._beat()
    await leading.until(lambda: leading.said)
    leading.crash()


async def test_who_has_nothing_to_append_says_that_it_leads_for_as_long_as_it_does(
    leading: Leading, clock: Time
) -> None:
    """Without clients nothing is appended for days; and an append that then waits is not late at once."""
    await leading.append(b"a")
    for _ in range(3):
        leading.said.clear()
        clock.now_s += 86_400
        leading.log._beat()
        await leading.until(lambda: leading.said)
    leading.said.clear()
    sending = asyncio.ensure_future(leading.append(b"b"))
    await leading.until(lambda: leading.stream.flight)
    clock.now_s += SAID_S - 0.1
    leading.log._beat()
    await leading.until(lambda: leading.said)
    await sending
    leading.crash()


async def test_a_login_that_is_refused_once_it_leads_is_tried_again_with_a_pause(
    leading: Leading, clock: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a refusal comes within a millisecond, and would be asked for a thousand times a second."""
    tried: list[int] = []

    async def refused() -> Stream:
        tried.append(1)
        await asyncio.sleep(0)
        raise LoginRefused("simulated", "another password")

    monkeypatch.setattr(leading.log, "_open_stream", refused)
    connecting = asyncio.ensure_future(leading.log._connect())
    await leading.until(lambda: tried)
    await leading.turns()
    assert len(tried) == 1
    connecting.cancel()
    leading.crash()
