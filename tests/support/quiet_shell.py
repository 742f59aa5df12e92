"""What stands around a client's session in tests that have no event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minibroker.aio.message import Message


class Waiter:
    """Stands for a caller's future."""

    def cancelled(self) -> bool:
        """It never is."""
        return False


class QuietShell:
    """The shell that a message may ask; here it is never asked."""

    thread: int
    scheduled: bool
    current_task: Callable[[], Any]
    failed: Callable[[Message[Any], BaseException], None]
    takes_cancellation: Callable[[Message[Any], BaseException | None], bool]

    def check_loop(self) -> None:
        """There is none."""

    def check_open(self) -> None:
        """Nothing is closed."""

    def is_cancelled(self) -> bool:
        """Nobody asks for it."""
        return False

    def flush(self) -> None:
        """Nothing is written."""

    def extended(self, message: Message[Any], lease_ms: int) -> None:
        """Nobody renews."""

    async def confirmed(
        self, message: Message[Any], settlements: Any, extends: bool = False
    ) -> None:
        """Not here."""
        raise AssertionError
