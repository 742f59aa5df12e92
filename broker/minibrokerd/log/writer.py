"""The one thread that writes and syncs, and how it tells the loop.

The loop hands over a job; the thread writes it, syncs it, and posts the number to the loop. A lone
publisher should not pay for the way round the loop, so the loop may also wait on a lock for a while
(`Job.wait`). Whoever takes the job's only claim, the waiting loop that gives up or the thread that
is done, decides how the news travels: by return value or by callback, never both, never neither.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, Protocol

_RETRY_SECONDS: Final = 0.25  # between attempts to allocate on a full disk


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

    def wait(self, job: Job, seconds: float) -> bool:
        """Wait until the job ended well; False: it failed, or the news come by callback."""
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
        self._thread = threading.Thread(target=self._run, name="minibroker-log", daemon=True)

    def start(self) -> None:
        """Start the thread, which reports to the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def put(self, job: Job) -> None:
        """Hand over a job; returns at once."""
        self._jobs.put(job)

    def wait(self, job: Job, seconds: float) -> bool:
        """Wait until the job ended well; False: it failed, or the news come by callback."""
        return job.wait(seconds)

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
        while (job := self._next_job()) is not None:
            if self.failed is None:
                try:
                    job.run()
                except BaseException as exc:  # noqa: BLE001 - whatever it is, the log must stop here
                    self._fail(exc)
            if job.end(self.failed is None) and job.done is not None:
                self.post(job.done)

    def _next_job(self) -> Job | None:
        while True:
            try:
                return self._jobs.get_nowait()
            except Empty:
                if not self._slice():
                    break
        while self.failed is None and self._retry_due():
            try:
                return self._jobs.get(timeout=max(0.0, self._retry_at - time.monotonic()))
            except Empty:
                self._guarded(self._retry)
                self._retry_at = time.monotonic() + _RETRY_SECONDS
        return self._jobs.get()

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
