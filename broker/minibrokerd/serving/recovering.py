"""A start reads its log: what is said meanwhile, that a signal ends it, and that it may have to begin again."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Final

from minibrokerd.engine.engine import Engine
from minibrokerd.log.failures import ReadAgain
from minibrokerd.log.seam import Log
from minibrokerd.process import memory
from minibrokerd.process.logs import OwnText, events
from minibrokerd.process.notify import Notifier

TURN_S: Final = 0.02  # between two turns of the loop
REPORT_S: Final = 2.0  # between two words to the service manager
EXTEND_S: Final = 30.0  # what each of them asks for: reading one segment takes far less
MOST_TIMES: Final = 5  # that it is read, if whoever leads is faster than this


class StoppedEarly(Exception):
    """A stop was asked for before the server listened."""


class Recovering:
    """One start. `show` opens the port on which it is told how far it is; `is_stopped`: a signal came."""

    def __init__(
        self,
        log: Log,
        engine: Engine,
        notifier: Notifier,
        show: Callable[[], object],
        is_stopped: Callable[[], object],
    ) -> None:
        self._log = log
        self._engine = engine
        self._notifier = notifier
        self._show = show
        self._is_stopped = is_stopped
        self._began_s = self._reported_s = self._turned_s = time.monotonic()

    @property
    def ms(self) -> int:
        """For how long it has gone on."""
        return round((time.monotonic() - self._began_s) * 1_000)

    async def run(self) -> None:
        """Read the log into the engine, and start that.

        Raises:
            StoppedEarly: only reading so far, so the disk is as it was.
            LogError: the log cannot be used.
        """
        self._notifier.status("reading the log", EXTEND_S)
        # Recovery makes millions of objects that stay: collecting in between would only walk them again.
        gc.disable()
        for times in range(1, MOST_TIMES + 1):
            try:
                await self._read()
                break
            except ReadAgain as error:
                if times == MOST_TIMES:
                    raise
                events.warning("begins_again", stream=OwnText(error.stream))
                self._engine.begin_again()
                memory.collect_all()
        self._look_for_stop()
        # Not by the batches of this loop: whoever stood by has replayed most of them before.
        self._engine.start(self._log.now_ms)
        memory.collect_little()

    async def _read(self) -> None:
        for batch in self._log.recover():
            self._look_for_stop()
            if batch is not None:
                self._engine.replay(batch)
            now_s = time.monotonic()
            if now_s - self._turned_s > TURN_S:
                await asyncio.sleep(0)  # whoever asks over HTTP is told how far it is
                self._turned_s = now_s
            if now_s - self._reported_s > REPORT_S:
                self._show()
                self._reported_s = now_s
                percent = self._log.recovered_percent
                self._notifier.status(f"recovering {percent} %", EXTEND_S)
                events.info("recovering", percent=percent, ms=self.ms)

    def _look_for_stop(self) -> None:
        if self._is_stopped():
            raise StoppedEarly
