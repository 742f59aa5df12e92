"""Which callables can be handlers of messages, and what they are behind partials, methods and wrappers."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Final

_REFUSED: Final = {
    inspect.isasyncgenfunction: "an async generator function, whose body would never run",
    inspect.isgeneratorfunction: "a generator function, whose body would never run",
}


def is_async(handler: object) -> bool:
    """Return whether calling the handler gives a coroutine at once, so that it need not run in a thread."""
    return any(inspect.iscoroutinefunction(each) for each in _layers(handler))


def check_handler(handler: object) -> None:
    """Refuse what can never handle a message.

    Raises:
        TypeError: says what it is, and what to pass instead.
    """
    wanted = "run() takes a function of one message, `def` or `async def`"
    if inspect.iscoroutine(handler):
        handler.close()
        raise TypeError(f"{wanted}; this one was called already: pass the function itself")
    if not callable(handler):
        raise TypeError(f"{wanted}, not {type(handler).__name__}")
    for is_refused, what in _REFUSED.items():
        if any(is_refused(each) for each in _layers(handler)):
            raise TypeError(f"{wanted}, not {what}")
    try:
        inspect.signature(handler).bind(object())
    except TypeError as error:
        raise TypeError(f"{wanted}; {handler!r:.200} cannot be called with one: {error}") from None
    except ValueError:
        return  # some built-in callables do not say what they take


def _layers(handler: Any) -> list[Any]:
    """Return a callable and what it stands for: behind partials, methods, `__call__` and functools.wraps."""
    layers: list[Any] = [handler]
    while len(layers) < 100:
        last: Any = layers[-1]
        if isinstance(last, functools.partial | functools.partialmethod):
            inner = last.func
        elif inspect.ismethod(last):
            inner = last.__func__
        elif inspect.isfunction(last):
            inner = getattr(last, "__wrapped__", None)
        elif inspect.isclass(last) or inspect.isbuiltin(last):
            inner = None
        else:
            inner = getattr(type(last), "__call__", None)  # noqa: B004 - it is asked for its kind, not whether it is there
            inner = inner if inspect.isfunction(inner) else None
        if inner is None or any(inner is each for each in layers):
            return layers
        layers.append(inner)
    return layers
