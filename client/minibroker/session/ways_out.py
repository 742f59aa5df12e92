"""What each way out of a handler means: the rule behind `Message.process`, `Queue.run` and the README's table.

Failing is the handler's doing, and costs an attempt. Being interrupted is not: by a cancellation that somebody
asked of this task, or from the keyboard. What ends a process (`SystemExit`, a test framework's failure) is charged
as well, or a message that ends every worker it meets would never come to its end.
"""

from __future__ import annotations

from enum import Enum

from minibroker.contract.errors import BodyError
from minibroker.session.error_text import leaves_of

Cancellation = type[BaseException] | tuple[()]


class Ending(Enum):
    """What becomes of the message, and whether the error goes further than its handler."""

    FAILED = "nack, and the next message"
    UNREADABLE = "reject, and the next message"
    FATAL = "nack, and the error goes on"
    INTERRUPTED = "release, and the error goes on"


def ending_of(error: BaseException, asked: bool, cancellation: Cancellation = ()) -> Ending:
    """Return what an error out of a handler means; `asked`: somebody asked its task to be cancelled.

    `cancellation` is the class of error that says so where the handler runs, if there is one.
    """
    if issubclass(type(error), BodyError):
        return Ending.UNREADABLE
    found = {_ending_of_leaf(leaf, asked, cancellation) for leaf in leaves_of(error)}
    return next(
        ending for ending in (Ending.INTERRUPTED, Ending.FATAL, Ending.FAILED) if ending in found
    )


def _ending_of_leaf(error: BaseException, asked: bool, cancellation: Cancellation) -> Ending:
    if issubclass(type(error), Exception):
        return Ending.FAILED
    if issubclass(type(error), KeyboardInterrupt):
        return Ending.INTERRUPTED
    if issubclass(type(error), cancellation):
        # One that nobody asked of this task came out of something the handler awaited.
        return Ending.INTERRUPTED if asked else Ending.FAILED
    return Ending.FATAL
