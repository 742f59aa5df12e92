"""The one thread that writes and syncs, and how it tells the loop.

The loop hands over a job; the thread writes it, syncs it, and posts the number to the loop. A lone
publisher should not pay for the way round the loop, so the loop may also wait on a lock for a while
(`Job.wait`). Whoever takes the job's only claim, the waiting loop that gives up or the thread that
is done, decides how the news travels: by return value or by callback, never both, never neither.

While the disk is quick, the loop does a small job itself (`Writer.do`), if the thread has none: the two hand-overs
cost more than the sync. How often the disk may then keep the loop waiting is bounded (docs/decisions/0004).
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, Protocol

from minibrokerd.process.logs import events

_RETRY_SECONDS: Final = 0.25  # between attempts to allocate on a full disk
QUICK_S: Final = 0.002  # a job that takes longer is slow
# After a slow one the thread does all jobs for so many times as long as it took: so a loop that waits for a disk
# which is slow now and then does so for a tenth of its time, and after a hang of ten seconds not for two minutes.
SLOW_TIMES: Final = 10
HANG_S: Final = 1.0  # a job that takes longer is told
# The loop's jobs have no slices of the work ahead between them, so the thread is woken after so many: each appends
# 16 KiB at most, and a slice is 512 KiB.
AHEAD_JOBS: Final = 32


class Job:
    """One piece of work for the writer thread; `done` is called in the loop unless `wait` saw it
    end. `then` is called in the writer thread, while the loop is still waiting: it saves whoever
    waits for the loop the time that its thread takes to wake up.
    """

    __slots__ = ("_claims", "_ended", "done", "run", "succeeded", "then")

    def __init__(self, run: Callable[[], None], done: Callable[[], None] | None) -> None:
        self.run = run
        self.done = done
        self.then: Callable[[], None] | None = None
        self.succeeded = False
        self._claims = [None]  # list.pop is atomic: exactly one side gets it
        self._ended = threading.Lock()
        self._ended.acquire()

    def wait(self, seconds: float) -> bool:
        """Wait until the job ended well; False: it failed, or the news come by callback."""
        if self._ended.acquire(timeout=seconds):
            return self.succeeded
        if self._claim():
            return False
        self._ended.acquire()  # it has just ended, and `then` may not have
        return self.succeeded

    def end(self, succeeded: bool) -> bool:
        """Mark the end, in the writer thread; True: `done` must be posted to the loop."""
        self.succeeded = succeeded
        gave_up = not self._claim()
        try:
            if succeeded and not gave_up and self.then is not None:
                self.then()
        finally:
            self._ended.release()  # whatever `then` raised: the loop must not wait for ever
        return succeeded and gave_up

    def expect_callback(self) -> None:
        """Say that nobody will wait for this job."""
        self._claim()

    def _claim(self) -> bool:
        try:
            self._claims.pop()
        except IndexError:
            return False
        return True


class JobRunner(Protocol):
    """What the log needs of whoever does its jobs, in their order: a thread, or a simulation of one."""

    failed: BaseException | None

    def start(self) -> None:
        """Begin; called in the event loop's thread."""
        ...

    def put(self, job: Job) -> None:
        """Hand over a job; returns at once."""
        ...

    def do(self, run: Callable[[], None]) -> bool:
        """Do what a job would, here and now, if it is likely to be quick; False: it must be handed over.

        True says that it ended, and `failed` how.
        """
        ...

    def wait(self, job: Job, seconds: float) -> bool:
        """Wait until a job that was handed over ended well; False: it failed, or the news come by callback."""
        ...

    def look(self) -> None:
        """Tell the operator if a job takes long; called now and then."""
        ...

    def post(self, callback: Callable[[], None]) -> None:
        """Have `callback` called in the loop, unless the loop is gone."""
        ...

    def stop(self) -> None:
        """Return when the jobs handed over so far have ended."""
        ...


class Writer:
    """Runs jobs in their order in a thread of its own; in between, slices of the work ahead.

    After a job raised, no other is run: `failed` is set and `on_failed` called, in this thread.
    `retry` is called now and then while `retry_due` says that something is missing.
    """

    def __init__(
        self,
        work_ahead: Callable[[], bool],
        retry_due: Callable[[], bool],
        retry: Callable[[], bool],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        self.failed: BaseException | None = None
        self._retry_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work_ahead = work_ahead
        self._retry_due = retry_due
        self._retry = retry
        self._on_failed = on_failed
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._handed = 0  # jobs, by the loop
        # Of these, by the thread: all of them, or the loop's own job would overtake one.
        self._ended = 0
        self._busy = threading.Lock()  # held by whoever works on the files
        self._here_from_s = math.inf  # when the loop may do jobs: nothing is known of the disk yet
        self._until_ahead = AHEAD_JOBS
        self._began_s = 0.0  # of the job that is being done; 0: none is
        self._is_told = False  # that it takes long
        self._thread = threading.Thread(target=self._run, name="minibroker-log", daemon=True)

    def start(self) -> None:
        """Start the thread, which reports to the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def put(self, job: Job) -> None:
        """Hand over a job; returns at once."""
        self._handed += 1
        self._jobs.put(job)

    def do(self, run: Callable[[], None]) -> bool:
        """Do a job in the loop, if the thread has none and the disk was quick of late; False: hand it over."""
        if self._handed != self._ended or time.monotonic() < self._here_from_s:
            return False
        if self.failed is not None or not self._busy.acquire(blocking=False):
            return False
        try:
            self._do(run)
        finally:
            self._busy.release()
        self._until_ahead -= 1
        if not self._until_ahead:
            self._until_ahead = AHEAD_JOBS
            self.put(Job(_nothing, None))
        return True

    def wait(self, job: Job, seconds: float) -> bool:
        """Wait until the job ended well; False: it failed, or the news come by callback."""
        return job.wait(seconds)

    def look(self) -> None:
        """Tell the operator if a job takes long; in the loop, and in the thread while the loop does one."""
        began_s = self._began_s
        if began_s and not self._is_told and time.monotonic() - began_s > HANG_S:
            self._is_told = True
            events.warning("log_stalled", text="the disk does not answer")

    def stop(self) -> None:
        """Return when the jobs handed over so far have ended and the thread too."""
        self._jobs.put(None)
        self._thread.join()

    def post(self, callback: Callable[[], None]) -> None:
        """Have `callback` called in the loop, unless the loop is gone."""
        assert self._loop is not None, "not started"
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop was closed: nobody is left to be told
            return

    def _run(self) -> None:
        self._busy.acquire()
        while (job := self._next_job()) is not None:
            if self.failed is None:
                self._do(job.run)
            if job.end(self.failed is None) and job.done is not None:
                self.post(job.done)
            self._ended += 1
        self._busy.release()

    def _do(self, run: Callable[[], None]) -> None:
        """Do a job, in whatever thread has the files, and note how long it took."""
        self._began_s = began_s = time.monotonic()
        try:
            run()
        except BaseException as exc:  # noqa: BLE001 - whatever it is, the log must stop here
            self._fail(exc)
        self._began_s = 0.0
        now_s = time.monotonic()
        if now_s - began_s > QUICK_S:
            self._here_from_s = now_s + SLOW_TIMES * (now_s - began_s)
        elif self._here_from_s == math.inf:
            self._here_from_s = now_s
        if self._is_told:
            self._is_told = False
            events.info("log_goes_on", ms=round(1_000 * (now_s - began_s)))

    def _next_job(self) -> Job | None:
        while True:
            try:
                return self._jobs.get_nowait()
            except Empty:
                if not self._slice():
                    break
        while True:
            self._busy.release()
            try:
                return self._wait()
            except Empty:
                pass
            finally:
                self._busy.acquire()
            self._guarded(self._retry)
            self._retry_at = time.monotonic() + _RETRY_SECONDS

    def _wait(self) -> Job | None:
        """Return the next job, and watch the loop meanwhile; Empty: a retry is due."""
        while True:
            is_due = self.failed is None and self._retry_due()
            wait_s = max(0.0, self._retry_at - time.monotonic()) if is_due else HANG_S
            try:
                return self._jobs.get(timeout=wait_s)
            except Empty:
                if is_due:
                    raise
                self.look()

    def _slice(self) -> bool:
        return self.failed is None and self._guarded(self._work_ahead)

    def _guarded(self, work: Callable[[], bool]) -> bool:
        try:
            return work()
        except BaseException as exc:  # noqa: BLE001 - a failed zero-fill is a failed disk
            self._fail(exc)
            return False

    def _fail(self, exc: BaseException) -> None:
        self.failed = exc
        self._on_failed(exc)


def _nothing() -> None:
    """No work: what comes between two jobs is done all the same."""
