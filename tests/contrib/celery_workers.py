"""`celery worker` as a process of its own, for tests that end it in every way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from support.processes import TETHER, look_until

HERE = Path(__file__).parent
StartWorker = Callable[..., "Worker"]


class Worker:
    """One `celery worker` of the shop, and what its tasks said."""

    def __init__(self, directory: Path, url: str, *flags: str) -> None:
        self._said = directory / "said"
        self._log = directory / "worker.log"
        env = {**os.environ, "SHOP_BROKER": url, "SHOP_SAID": str(self._said)}
        command = [sys.executable, "-m", "celery", "-A", "shop", "worker", "-l", "INFO", *flags]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", TETHER, *command],
                env=env,
                cwd=HERE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its pool is a group of processes
            )

    def lines(self) -> list[str]:
        """Return what was said until now."""
        return self._said.read_text("utf-8").splitlines() if self._said.exists() else []

    def says(self, text: str, times: int = 1) -> None:
        """Return when a task has said a line so often."""
        try:
            look_until(lambda: self.lines().count(text) >= times, self.process, repr(text))
        except AssertionError as error:
            raise AssertionError(f"{error}\nsaid: {self.lines()}\nlog: {self.log()}") from error

    def log(self) -> str:
        """Return what the worker printed."""
        return self._log.read_text("utf-8", "replace")
