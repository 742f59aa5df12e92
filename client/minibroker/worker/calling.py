"""How a handler is called: in the loop, or in a thread; with its time-out and what surrounds it.

What a handler does not use costs nothing: each layer is put around the call when the worker starts, or not at all.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any

from minibroker.aio.in_thread import MessageInThread, settle
from minibroker.aio.message import Message
from minibroker.shell.telling import tell_goes_on
from minibroker.worker.declared import Declared, Takes
from minibroker.worker.following import HandlerTimeout

Call = Callable[[Message[Any]], Awaitable[object]]
Middleware = Callable[[Message[Any]], AbstractAsyncContextManager[Any, Any]]
Plain = Callable[[Message[Any]], Any]


def with_arguments(function: Callable[..., Any], takes: Takes) -> Plain:
    """Return `function` as one of the message alone."""
    convert = takes.convert
    if takes.body_at is None:
        if convert is None:
            return function
        return lambda message: function(_with_body(message, convert))
    if takes.message_at is None:
        if convert is None:
            return lambda message: function(message.body)
        return lambda message: function(convert(message.body))
    made = convert if convert is not None else lambda body: body
    if takes.body_at == 0:
        return lambda message: function(made(message.body), message)
    return lambda message: function(message, made(message.body))


def _with_body(message: Message[Any], convert: Callable[[Any], Any]) -> Message[Any]:
    message._body = convert(message.body)
    return message


def with_middleware(call: Call, middlewares: Sequence[Middleware]) -> Call:
    """Return `call` inside all of `middlewares`, the first one outermost."""
    for middleware in reversed(middlewares):
        call = _inside(call, middleware)
    return call


def _inside(call: Call, middleware: Middleware) -> Call:
    async def surrounded(message: Message[Any]) -> object:
        async with middleware(message):
            return await call(message)
        return None

    return surrounded


def with_timeout(call: Call, timeout_s: float) -> Call:
    """Return `call`, cancelled after `timeout_s` seconds, which raises HandlerTimeout."""

    async def bounded(message: Message[Any]) -> object:
        value: object = None
        try:
            async with asyncio.timeout(timeout_s) as bound:
                value = await call(message)
        except TimeoutError as error:
            if not bound.expired():
                raise
            # With the place where it was cancelled, and no word of how the loop does that.
            where = (error.__cause__ or error).__traceback__
            raise timed_out(timeout_s).with_traceback(where) from None
        if bound.expired():  # it caught its cancellation, and went on
            raise timed_out(timeout_s)
        return value

    return bounded


def timed_out(timeout_s: float) -> HandlerTimeout:
    """Return the error of a handler that ran for too long."""
    return HandlerTimeout(f"it ran for longer than its timeout of {timeout_s:g} s")


class Threads:
    """Calls a `def` handler in threads of its own, as many as its concurrency."""

    def __init__(self, declared: Declared, function: Plain) -> None:
        self._function = function
        self._timeout_s = declared.timeout_s
        self._pool = ThreadPoolExecutor(declared.concurrency, f"minibroker-{declared.queue}")

    async def call(self, message: Message[Any]) -> object:
        """Call the handler; what it returns is awaited if it can be."""
        loop = asyncio.get_running_loop()
        step = _Step(self._function, MessageInThread(message, loop))
        context = contextvars.copy_context()
        future = loop.run_in_executor(self._pool, functools.partial(context.run, step.run))
        timer = None
        if self._timeout_s is not None:
            timer = loop.call_later(self._timeout_s, step.interrupt, timed_out(self._timeout_s))
        try:
            value, error = await asyncio.shield(future)
        except asyncio.CancelledError:
            await self._left(message, future)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if error is not None:
            raise error
        if inspect.isawaitable(value):
            return await value
        return value

    async def _left(self, message: Message[Any], future: asyncio.Future[Any]) -> None:
        """See to a call whose task was cancelled: a thread cannot be stopped.

        A message that was lost has no deadline: the next one must not begin beside it. Otherwise the worker ends.
        """
        if message.lost:
            tell_goes_on(message)
            await asyncio.wait([future])
        if future.done():
            await settle(message, *future.result())

    def close(self) -> None:
        """Let the threads end when they are idle."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Step:
    """One call in a thread, which can be interrupted at its next step in Python."""

    def __init__(self, function: Plain, message: Any) -> None:
        self._function = function
        self._message = message
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._timeout: BaseException | None = None

    def run(self) -> tuple[Any, BaseException | None]:
        """Call the handler, in its thread. Its error is a value: a future takes no StopIteration."""
        try:
            return self._call()
        except HandlerTimeout as error:  # it struck while the call was ending
            return None, self._timeout or error
        finally:
            _raise_in(threading.get_ident(), None)

    def _call(self) -> tuple[Any, BaseException | None]:
        with self._lock:
            self._thread = threading.get_ident()
        try:
            return self._function(self._message), None
        except HandlerTimeout as error:  # with the place where it struck
            return None, (self._timeout or error).with_traceback(error.__traceback__)
        except BaseException as error:  # noqa: BLE001 - raised again in the loop, where `process` judges it
            return None, error
        finally:
            with self._lock:
                self._thread = None

    def interrupt(self, error: HandlerTimeout) -> None:
        """Raise HandlerTimeout in the thread, if the call still runs; called in the loop."""
        with self._lock:
            if self._thread is not None:
                self._timeout = error
                _raise_in(self._thread, HandlerTimeout)


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Have the interpreter raise `kind` in a thread at its next step; None takes a raise back that is due."""
    raised = ctypes.py_object(kind) if kind is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
