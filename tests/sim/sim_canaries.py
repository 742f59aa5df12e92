"""Brokers that are broken on purpose: a checker that does not catch them proves nothing."""

from __future__ import annotations

from collections.abc import Callable

from sim_writer import SimulatedWriter

from minibrokerd.log.writer import Job


class HastyWriter(SimulatedWriter):
    """Says that a batch is safe before it is written."""

    def _next(self) -> None:
        for job in self._jobs:
            if job.done is not None and not job.succeeded:
                job.succeeded = True
                self.post(job.done)
        super()._next()

    def _tell(self, job: Job) -> None:
        if not job.succeeded:
            super()._tell(job)


class DeafWriter(SimulatedWriter):
    """Goes on after a failed write or sync, as if it had been done."""

    def _run(self, run: Callable[[], None]) -> None:
        try:
            run()
        except OSError:
            self._deaf = True
