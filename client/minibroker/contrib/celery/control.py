"""The control of a worker with greenlets hears again after an error of its connection.

Such a worker has a connection for control alone, in a greenlet that ends with its first error, as when no answer
comes in time. Where a client does not reconnect by itself the other connection has one, too, and Celery begins
all anew, this greenlet included. Here the other one goes on, so the worker would run tasks, and answer no `ping`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from celery.worker.pidbox import gPidbox
from kombu.exceptions import OperationalError

from minibroker.contract.errors import MinibrokerError

AGAIN_S: Final = 1.0
FAILED: Final = (OSError, OperationalError, MinibrokerError)

logger = logging.getLogger("minibroker.contrib.celery")


def _again(theirs: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    @wraps(theirs)
    def loop(self: Any, c: Any) -> None:
        while True:
            try:
                return theirs(self, c)
            except FAILED as error:
                logger.warning("control begins anew in %s s: %s", AGAIN_S, error)
            time.sleep(AGAIN_S)
            shutdown = self._node_shutdown  # None: it was stopped meanwhile
            if shutdown is None or shutdown.is_set():
                return None

    return loop


def install() -> None:
    """Have it in a worker that starts."""
    if not hasattr(gPidbox.loop, "__wrapped__"):
        gPidbox.loop = _again(gPidbox.loop)
