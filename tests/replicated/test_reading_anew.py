"""What was replayed counts no more: who starts, or stands by, reads all of the log anew, and leads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from log_kinds import Hand
from test_spool import Spooled, names_in, some

from minibrokerd.log.failures import ReadAgain
from minibrokerd.log.seam import Batch
from minibrokerd.replicated import standing_by, taking_over
from minibrokerd.replicated.failures import BodyGone
from minibrokerd.replicated.log import JetStreamLog
from minibrokerd.serving import which_log

COUNT = 20
LOOKS = 100  # without anything read, until it is thought to hang


class Replaying:
    """A view of a broker whose replay needs a body that is gone, at these batches, once each."""

    def __init__(self, log: JetStreamLog, *lacks: int) -> None:
        self.log = log
        self.engine = self.core = self
        self.active = ""
        self.numbers: list[int] = []
        self.agains = 0
        self._lacks = list(lacks)

    def replay(self, batch: Batch) -> None:
        """Take a batch."""
        if batch.number in self._lacks:
            self._lacks.remove(batch.number)
            raise BodyGone(self.log.name, 1)
        self.numbers.append(batch.number)

    def begin_again(self) -> None:
        """Forget them."""
        self.agains += 1
        self.numbers.clear()

    def tidy(self, unix_ms: int) -> None:
        """There is nothing to be tidied."""


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are for servers that take time; these take ticks."""
    for name in ("leading.PAUSE_S", "leading.SLOW_PAUSE_S", "leading.MOST_PAUSE_S"):
        monkeypatch.setattr(f"minibrokerd.replicated.{name}", 0.0)
    monkeypatch.setattr(standing_by, "SILENT_S", 0.1)
    for name in ("FOLLOW_S", "SLICE_S", "LOOK_AGAIN_S", "BEAT_S", "TURN_S"):
        monkeypatch.setattr(taking_over, name, 0.001)


async def log_of(path: Path) -> JetStreamLog:
    """Return a log that another broker wrote, which is gone."""
    kind = Spooled(path)
    hand = Hand(kind).lead()
    await some(hand, COUNT)
    hand.crash()
    return kind.open()


def batches_of(log: JetStreamLog) -> Iterator[Batch]:
    """Yield what a start reads."""
    looks = 0
    for batch in log.recover():
        looks = 0 if batch is not None else looks + 1
        assert looks < LOOKS, "it waits for what nobody reads"
        if batch is not None:
            yield batch


def start(log: JetStreamLog, view: Replaying) -> None:
    """Read the log as `Recovering` does."""
    for _ in range(4):
        try:
            for batch in batches_of(log):
                view.replay(batch)
            return
        except ReadAgain:
            view.begin_again()


@pytest.mark.parametrize("lacks", [(1,), (7,), (COUNT,), (7, 3, COUNT)])
async def test_a_start_whose_replay_lacks_a_body_reads_all_anew(
    tmp_path: Path, lacks: tuple[int, ...]
) -> None:
    log = await log_of(tmp_path)
    view = Replaying(log, *lacks)
    start(log, view)
    assert (view.numbers, view.agains) == ([*range(1, COUNT + 1)], len(lacks))
    assert log.history.epoch > 1
    assert log.history.number == COUNT


@pytest.mark.parametrize("lacks", [(1,), (7,), (COUNT,), (7, 3, COUNT)])
async def test_one_that_stands_by_reads_all_anew_and_leads(
    tmp_path: Path, lacks: tuple[int, ...]
) -> None:
    log = await log_of(tmp_path)
    view = Replaying(log, *lacks)
    options, signals = SimpleNamespace(log="a stream"), SimpleNamespace(asked=0)
    await which_log.stand_by(options, signals, view)  # type: ignore[arg-type]
    start(log, view)
    assert (view.numbers, view.agains) == ([*range(1, COUNT + 1)], len(lacks))
    assert log.history.number == COUNT


async def test_nothing_stays_in_the_spool_of_what_was_read_twice(tmp_path: Path) -> None:
    log = await log_of(tmp_path)
    start(log, Replaying(log, 7))
    assert log.back.spool is not None
    assert len(names_in(Path(log.back.spool.path))) > 1
    log.back.give_up(log.history.read_to + 1)
    assert names_in(Path(log.back.spool.path)) == ["lock"]
