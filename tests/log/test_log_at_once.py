"""Jobs that the loop does itself: when it may, in which order, and what is said of a disk that hangs."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import repeat
from pathlib import Path
from threading import current_thread, main_thread

import pytest
from log_world import PATIENCE_SECONDS, Engine, FaultyOps

from minibrokerd.log import writer
from minibrokerd.log.writer import AHEAD_JOBS, HANG_S, QUICK_S, SLOW_TIMES, Job, Writer


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        """Return what it says."""
        return self.now_s


class Bench:
    """A writer on a clock of the test's, with what it was seen to do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = Time()
        monkeypatch.setattr(writer, "time", self.time)
        self.failures: list[BaseException] = []
        self.slices = 0
        self.ran: list[tuple[str, bool]] = []  # the name of a job, and whether the loop did it
        self.writer = Writer(self._slice, lambda: False, lambda: False, self.failures.append)
        self.writer.start()

    def _slice(self) -> bool:
        self.slices += 1
        return False

    def job(self, name: str = "x", takes_s: float = 0.0, does: Callable[[], object] = str) -> Job:
        """Return a job that takes so long."""

        def run() -> None:
            self.ran.append((name, current_thread() is main_thread()))
            self.time.now_s += takes_s
            does()

        return Job(run, None)

    def hand(self, job: Job) -> None:
        """Have the thread do a job, and return when it waits for the next one."""
        self.writer.put(job)
        job.wait(PATIENCE_SECONDS)
        self.rest()

    def rest(self) -> None:
        """Return when the thread has let go of the files, which is a moment after its last job."""
        while self.writer._handed != self.writer._ended or self.writer._busy.locked():
            os.sched_yield()

    def knows_the_disk(self) -> Bench:
        """Have had a quick job."""
        self.hand(self.job("first"))
        return self


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    made = Bench(monkeypatch)
    yield made
    made.writer.stop()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is told to the operator."""
    names: list[str] = []

    def note(name: str, **fields: Mapping[str, object]) -> None:
        names.append(name)

    monkeypatch.setattr(writer.events, "warning", note, raising=False)
    monkeypatch.setattr(writer.events, "info", note, raising=False)
    return names


async def test_the_loop_does_nothing_on_a_disk_that_nobody_knows(bench: Bench) -> None:
    assert not bench.writer.do(bench.job().run)
    bench.knows_the_disk()
    assert bench.writer.do(bench.job("second").run)
    assert bench.writer.failed is None
    assert bench.ran == [("first", False), ("second", True)]


@pytest.mark.parametrize("by_loop", [False, True])
async def test_after_a_slow_job_the_thread_does_all_for_ten_times_as_long(
    bench: Bench, by_loop: bool
) -> None:
    bench.knows_the_disk()
    slow = bench.job("slow", takes_s=QUICK_S * 2)
    if by_loop:
        assert bench.writer.do(slow.run)
    else:
        bench.hand(slow)
    bench.time.now_s += SLOW_TIMES * QUICK_S * 2 - 0.001
    assert not bench.writer.do(bench.job().run)
    bench.hand(bench.job())  # a quick one takes nothing off
    assert not bench.writer.do(bench.job().run)
    bench.time.now_s += 0.002
    assert bench.writer.do(bench.job().run)


async def test_the_loop_overtakes_no_job_that_was_handed_over(bench: Bench) -> None:
    """Neither one that waits nor one that the thread has just taken."""
    bench.knows_the_disk()
    began, goes_on = threading.Event(), threading.Event()

    def waits() -> None:
        began.set()
        assert goes_on.wait(PATIENCE_SECONDS)

    handed = bench.job("handed", does=waits)
    bench.writer.put(handed)
    assert not bench.writer.do(bench.job().run)
    assert began.wait(PATIENCE_SECONDS)
    assert not bench.writer.do(bench.job().run)
    goes_on.set()
    assert handed.wait(PATIENCE_SECONDS)


async def test_the_loop_waits_for_no_slice_of_the_work_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch)
    bench.knows_the_disk()
    began, goes_on = threading.Event(), threading.Event()

    def slice_() -> bool:
        began.set()
        assert goes_on.wait(PATIENCE_SECONDS)
        return False

    bench.writer._work_ahead = slice_
    bench.writer.put(bench.job("handed"))
    assert began.wait(PATIENCE_SECONDS)
    assert not bench.writer.do(bench.job().run)
    goes_on.set()
    bench.writer.stop()


async def test_the_work_ahead_goes_on_while_the_loop_does_all_jobs(bench: Bench) -> None:
    bench.knows_the_disk()
    before = bench.slices
    for _ in repeat(None, 3 * AHEAD_JOBS):
        bench.rest()
        assert bench.writer.do(bench.job().run)
    bench.rest()
    assert bench.slices == before + 3


async def test_a_failure_in_the_loop_is_as_final_as_one_in_the_thread(bench: Bench) -> None:
    bench.knows_the_disk()
    error = OSError(errno.EIO, "Input/output error")

    def fails() -> None:
        raise error

    assert bench.writer.do(bench.job("fails", does=fails).run)
    assert (bench.failures, bench.writer.failed) == ([error], error)
    assert not bench.writer.do(bench.job("later").run)
    bench.hand(bench.job("later"))
    assert [name for name, _ in bench.ran] == ["first", "fails"]


async def test_the_thread_tells_that_the_loop_waits_for_the_disk(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """While it waits, for the loop itself can say nothing; once, and that it goes on."""
    monkeypatch.setattr(writer, "HANG_S", 0.01)
    bench = Bench(monkeypatch).knows_the_disk()

    def hangs() -> None:
        for _ in range(2):  # the first look may be on its way already
            looked.clear()
            assert looked.wait(PATIENCE_SECONDS)

    looked = threading.Event()
    look = bench.writer.look

    def looks() -> None:
        look()
        looked.set()

    monkeypatch.setattr(bench.writer, "look", looks)
    assert bench.writer.do(bench.job("hangs", takes_s=0.02, does=hangs).run)
    bench.writer.stop()
    assert said == ["log_stalled", "log_goes_on"]


async def test_the_loop_tells_that_the_thread_waits_for_the_disk(
    bench: Bench, said: list[str]
) -> None:
    began, goes_on = threading.Event(), threading.Event()

    def waits() -> None:
        began.set()
        assert goes_on.wait(PATIENCE_SECONDS)

    job = bench.job(does=waits)
    bench.writer.put(job)
    assert began.wait(PATIENCE_SECONDS)
    bench.writer.look()
    assert said == []
    bench.time.now_s += HANG_S + 0.1
    bench.writer.look()
    bench.writer.look()
    assert said == ["log_stalled"]
    goes_on.set()
    assert job.wait(PATIENCE_SECONDS)
    bench.rest()
    assert said == ["log_stalled", "log_goes_on"]


async def test_a_small_batch_is_synced_in_the_loop_and_found_by_a_start(tmp_path: Path) -> None:
    ops = FaultyOps()
    engine = Engine(tmp_path / "d", ops=ops).open()
    names = [b"%d" % number for number in range(50)]
    here = 0
    for name in names:
        batch = engine.batch(name)
        if engine.log.append(batch, batch.number - 1, is_small=True):
            here += 1
        else:
            await asyncio.wait_for(engine.news.wait(), PATIENCE_SECONDS)
            engine.news.clear()
    assert here
    assert len(engine.synced) == 50 - here
    engine.log.abandon()
    assert Engine(tmp_path / "d").recover() == [[name] for name in names]


async def test_a_sync_that_fails_in_the_loop_ends_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "QUICK_S", 1_000.0)
    ops = FaultyOps()
    engine = Engine(tmp_path / "d", ops=ops).open()
    ops.sync_errors = [OSError(errno.EIO, "Input/output error")]
    batch = engine.batch(b"x")
    assert not engine.log.append(batch, batch.number - 1, is_small=True)
    await asyncio.wait_for(asyncio.shield(engine.failed), PATIENCE_SECONDS)
    await asyncio.sleep(0)
    assert engine.synced == []
