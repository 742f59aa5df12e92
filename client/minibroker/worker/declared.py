"""One handler as an application declares it: a value, checked before the first message is taken.

What a handler takes is read from its parameters: one annotated as `Message` gets the message, any other the body,
made into the type of its annotation. A single one without an annotation gets the message, as with `Queue.run`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args, get_origin

from minibroker.aio.message import Message
from minibroker.contract import limits
from minibroker.contract.settings import check_settings
from minibroker.session.handling import is_async
from minibroker.session.log_wishes import Start, start_fields
from minibroker.session.spans import Span, in_seconds, milliseconds, of_type, whole
from minibroker.session.typed import Convert, converter

Executor = Literal["loop", "thread", "process"]
MAX_TIMEOUT_MS: Final = 2**40
_EMPTY: Final = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Takes:
    """What a handler is called with: the message or the body first, perhaps the other one behind it.

    `convert` makes the body; None: it is handed over as it was published.
    """

    body_at: int | None
    message_at: int | None
    convert: Convert | None
    body_type: str = ""


@dataclass(frozen=True, slots=True)
class Declared:
    """One handler: what it works on, and how. Spans are as the application gave them."""

    queue: str
    function: Callable[..., Any]
    takes: Takes
    executor: Executor
    concurrency: int = 1
    timeout_s: float | None = None
    lease: Span | None = None
    settings: Mapping[str, int | str] = field(default_factory=dict)
    overwrite: bool = False
    start: Start | None = None  # of a group of a retained log: it is made

    @property
    def name(self) -> str:
        """The function, as the banner and the log show it."""
        return getattr(self.function, "__qualname__", None) or repr(self.function)


def declare(
    function: Callable[..., Any],
    queue: str,
    concurrency: int,
    timeout: Span | None,
    lease: Span | None,
    executor: str | None,
    settings: Mapping[str, Any],
    overwrite: bool = False,
    start: Start | None = None,
) -> Declared:
    """Return a handler as a value.

    Raises:
        TypeError, BadValue, ValueError: it can never work; says what to write instead.
    """
    of_type("queue", queue, str, "the name of a queue, a str")
    whole("concurrency", concurrency, 1, limits.MAX_PREFETCH)
    if start is not None:
        start_fields(start)
        if limits.GROUP_MARK not in queue:
            raise ValueError(
                f"start is for a group of a retained log, which is called LOG{limits.GROUP_MARK}GROUP"
            )
    timeout_s = None
    if timeout is not None:
        timeout_s = milliseconds("timeout", timeout, MAX_TIMEOUT_MS, 1) / 1000
    if lease is not None:
        milliseconds("lease", lease, limits.MAX_LEASE_MS, limits.MIN_LEASE_MS)
    if executor is None and is_async(function) and _takes_blocking(function):
        raise TypeError(
            f"{function!r:.100} is an async def, and its message is a minibroker.Message: the verbs are awaited"
        )
    return Declared(
        queue,
        function,
        takes_of(function),
        _executor(function, executor),
        concurrency,
        timeout_s,
        in_seconds(lease),
        check_settings(settings),
        overwrite,
        start,
    )


def _executor(function: Callable[..., Any], asked: str | None) -> Executor:
    runs_in_loop = is_async(function)
    if asked is None:
        return "loop" if runs_in_loop else "thread"
    if asked not in ("thread", "process"):
        raise ValueError(f'executor is {asked!r:.100}; it must be "thread" or "process"')
    if runs_in_loop and not _is_def(function):
        raise TypeError(f"an async def handler runs in the loop; executor={asked!r} is for def")
    if asked == "process" and not _is_importable(function):
        raise TypeError(
            "a handler that runs in a process must be a function at the top of its module: it is imported again"
        )
    return "thread" if asked == "thread" else "process"


def _is_def(function: Callable[..., Any]) -> bool:
    """Return whether it is a `def`, be it one around an `async def`: perhaps it calls asyncio.run."""
    return inspect.isfunction(function) and not inspect.iscoroutinefunction(function)


def _is_importable(function: Callable[..., Any]) -> bool:
    if inspect.ismethod(function) and not inspect.isclass(function.__self__):
        return False  # by its name there is only the function of the class, whose `self` would be the message
    name = getattr(function, "__qualname__", "<")
    return "<" not in name and getattr(function, "__module__", "__main__") != "__main__"


def takes_of(function: Callable[..., Any]) -> Takes:
    """Return what a function takes, by its annotations; TypeError if a message cannot be handed to it."""
    wanted = "a handler takes the message, its body, or both: `def handler(body: Email, message: Message)`"
    if not callable(function):
        raise TypeError(f"{wanted}; {type(function).__name__} cannot be called")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{wanted}; a generator function's body would never run")
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError as error:
        raise TypeError(f"an annotation of {function!r:.100} names nothing: {error}") from error
    except ValueError:  # some built-in callables do not say what they take
        return Takes(None, 0, None)
    parameters = [each for each in signature.parameters.values() if _is_filled(each)]
    if not 1 <= len(parameters) <= 2 or any(each.kind is each.KEYWORD_ONLY for each in parameters):
        raise TypeError(f"{wanted}; {function!r:.100} takes {signature}")
    return _assigned(parameters, wanted)


def _is_filled(parameter: inspect.Parameter) -> bool:
    """Return whether the worker has to give something for it."""
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return False
    return parameter.default is _EMPTY or _is_message(parameter.annotation)


def _assigned(parameters: list[inspect.Parameter], wanted: str) -> Takes:
    kinds = [each.annotation for each in parameters]
    messages = [at for at, kind in enumerate(kinds) if _is_message(kind)]
    if not messages:
        messages = [at for at, kind in enumerate(kinds) if kind is _EMPTY]
    bodies = [at for at in range(len(kinds)) if at not in messages]
    if len(messages) > 1 or len(bodies) > 1:
        raise TypeError(f"{wanted}; annotate one of the two as Message")
    message_at = messages[0] if messages else None
    if bodies:
        kind = kinds[bodies[0]]
        kind = Any if kind is _EMPTY else kind
        return Takes(bodies[0], message_at, converter(kind), _shown(kind))
    inner = get_args(kinds[0])
    if inner:  # Message[Email]
        return Takes(None, message_at, converter(inner[0]), _shown(inner[0]))
    return Takes(None, message_at, None)


def _is_message(annotation: Any) -> bool:
    kind = get_origin(annotation) or annotation
    return kind is Message or _is_blocking(kind)


def _is_blocking(kind: Any) -> bool:
    """Return whether it is `minibroker.sync.Message`: the verbs of a `def` handler's message are that one's."""
    module = sys.modules.get("minibroker.sync.message")
    return module is not None and kind is module.Message


def _takes_blocking(function: Callable[..., Any]) -> bool:
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    return any(_is_blocking(get_origin(each.annotation) or each.annotation) for each in parameters)


def _shown(kind: Any) -> str:
    return "" if kind is Any else getattr(kind, "__name__", str(kind))
