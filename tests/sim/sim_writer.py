"""The thread that writes, without a thread: each job takes some simulated time.

Whether a job's effects are on the disk at the beginning of that time or at its end is drawn: a crash in between
finds both. A hanging disk is a job that takes a minute.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

from sim_loop import Handle, LifeLoop

from minibrokerd.log.writer import Job

RETRY_S = 0.25


class SimulatedWriter:
    """See `minibrokerd.log.writer.Writer`, whose place it takes. `latency_us` is asked how long each job takes."""

    def __init__(
        self,
        loop: LifeLoop,
        random: Random,
        latency_us: Callable[[], int],
        work_ahead: Callable[[], bool],
        retry_due: Callable[[], bool],
        retry: Callable[[], bool],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        self.failed: BaseException | None = None
        self._loop = loop
        self._random = random
        self._latency_us = latency_us
        self._work_ahead = work_ahead
        self._retry_due = retry_due
        self._retry = retry
        self._on_failed = on_failed
        self._jobs: deque[Job] = deque()
        self._current: Job | None = None
        self._has_run = False
        self._handle: Handle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether there is no job, and none in work."""
        return self._current is None and not self._jobs

    def start(self) -> None:
        """Nothing is to be started."""

    def put(self, job: Job) -> None:
        """Take a job."""
        self._jobs.append(job)
        if self._current is None:
            self._in(0, self._next)

    def do(self, run: Callable[[], None]) -> bool:
        """The loop does it, as often as not where it may; a disk that hangs has the whole broker stand still."""
        if not self.is_idle or self.failed is not None or self._random.random() < 0.5:
            return False
        self._loop.life.stop_until(self._loop.world.now_us + self._latency_us())
        self._run(run)
        if self._handle is None:
            self._in(0, self._next)  # the work ahead
        return True

    def look(self) -> None:
        """Nobody is told."""

    def wait(self, job: Job, seconds: float) -> bool:
        """The loop waits: the job is done in that time, or it is not."""
        latency_us = self._latency_us()
        if self._current is not None or self._jobs[0] is not job or latency_us > seconds * 1e6:
            job.expect_callback()
            return False
        self._jobs.popleft()
        self._loop.world.advance(latency_us)
        self._run(job.run)
        job.end(self.failed is None)
        self._in(0, self._next)
        return job.succeeded

    def post(self, callback: Callable[[], None]) -> None:
        """Call in the next turn of the loop."""
        self._loop.call_soon(callback)

    def stop(self) -> None:
        """Do what was handed over, at once."""
        if self._current is not None:
            self._end()
        while self._jobs:
            job = self._jobs.popleft()
            self._run(job.run)
            self._tell(job)
        if self._handle is not None:
            self._handle.cancel()

    def _in(self, delay_us: int, step: Callable[[], None]) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_later(delay_us / 1_000_000, step)

    def _next(self) -> None:
        self._handle = None
        if self._jobs:
            self._current = self._jobs.popleft()
            self._has_run = self._random.random() < 0.5
            if self._has_run:
                self._run(self._current.run)
            self._in(self._latency_us(), self._end_and_go_on)
        elif self.failed is None and self._guarded(self._work_ahead):
            self._in(100, self._next)
        elif self.failed is None and self._retry_due():
            self._in(round(RETRY_S * 1_000_000), self._try_again)

    def _try_again(self) -> None:
        self._guarded(self._retry)
        self._next()

    def _end_and_go_on(self) -> None:
        self._handle = None
        self._end()
        self._next()

    def _end(self) -> None:
        job, self._current = self._current, None
        assert job is not None
        if not self._has_run:
            self._run(job.run)
        self._tell(job)

    def _tell(self, job: Job) -> None:
        if job.end(self.failed is None) and job.done is not None:
            self.post(job.done)

    def _run(self, run: Callable[[], None]) -> None:
        if self.failed is None:
            try:
                run()
            except OSError as exc:
                self._fail(exc)

    def _guarded(self, work: Callable[[], bool]) -> bool:
        try:
            return work()
        except OSError as exc:
            self._fail(exc)
            return False

    def _fail(self, exc: OSError) -> None:
        self.failed = exc
        self._on_failed(exc)
