"""`minibroker.sync` in the shape of asyncio's client, so that one test speaks to both: it calls in threads."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import Any

import minibroker.sync
from minibroker.session.peek import Peeks
from minibroker.session.step import StepData

# They wait for nothing in asyncio's client either.
AT_ONCE = frozenset(
    {"queue", "temporary_queue", "exchange", "log", "consume", "process", "step", "follow"}
)


def shown(value: Any) -> Any:
    """Return what a test sees of a value: objects with verbs that block are wrapped."""
    if isinstance(value, list) and not isinstance(value, Peeks):
        return [shown(each) for each in value]
    ours = type(value).__module__.startswith("minibroker.sync") or inspect.isgenerator(value)
    return Shown(value) if ours else value


def plain(value: Any) -> Any:
    """Return what is passed on for an argument."""
    value = _inner(value)
    if not callable(value) or isinstance(value, type):
        return value

    @functools.wraps(value)
    def called(message: Any) -> Any:
        return value(Shown(message))

    return called


class Shown:
    """One object of `minibroker.sync`, awaited."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if not inspect.ismethod(value):
            return shown(value)
        if isinstance(self.inner, StepData):  # says what is to be done, and waits at its end
            return lambda *args, **kwargs: value(*map(_inner, args), **kwargs)
        if name in AT_ONCE:
            return lambda *args, **kwargs: shown(value(*args, **kwargs))

        async def call(*args: Any, **kwargs: Any) -> Any:
            return shown(await asyncio.to_thread(value, *map(plain, args), **kwargs))

        return call

    async def __aenter__(self) -> Any:
        return shown(await asyncio.to_thread(self.inner.__enter__))

    async def __aexit__(self, *error: Any) -> Any:
        return await asyncio.to_thread(self.inner.__exit__, *error)

    def __aiter__(self) -> Shown:
        return Shown(iter(self.inner))

    async def __anext__(self) -> Any:
        value = await asyncio.to_thread(next, self.inner, None)
        if value is None:
            raise StopAsyncIteration
        return shown(value)


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Shown) else value


class Connecting:
    """`connect` of `minibroker.sync` as asyncio's: awaited, or entered."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._call = lambda: minibroker.sync.connect(*args, **kwargs)
        self._broker: Any = None

    def __await__(self) -> Any:
        return self._open().__await__()

    async def _open(self) -> Any:
        self._broker = shown(await asyncio.to_thread(self._call))
        return self._broker

    async def __aenter__(self) -> Any:
        return await self._open()

    async def __aexit__(self, *error: Any) -> None:
        await self._broker.close()
