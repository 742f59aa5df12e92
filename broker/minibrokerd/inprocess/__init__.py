"""A whole broker in this process: the real connections, engine and core on a log in memory, no socket, no disk.

It has no event loop and no thread of its own. Whoever hands it bytes steps it until nothing is left to do, and
whoever waits for it steps it when its next timer is due; so it serves asyncio, uvloop and blocking callers alike,
in one thread or in several.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from minibrokerd.inprocess.memory_broker import MemoryBroker
from minibrokerd.inprocess.pipe import Pipe

_named: dict[str, MemoryBroker] = {}
_lock = threading.Lock()


def find(name: str) -> MemoryBroker:
    """Return the broker that this process has under `name`, made at the first call; without a name, a new one."""
    if not name:
        return MemoryBroker()
    with _lock:
        broker = _named.get(name)
        if broker is None:
            broker = _named[name] = MemoryBroker()
        return broker


def make(name: str) -> MemoryBroker:
    """Return a new broker under a name that has none, with a log to restart from. ValueError: it has one."""
    with _lock:
        if name in _named:
            raise ValueError(f"there is a broker called {name!r} in this process already")
        broker = _named[name] = MemoryBroker(keep=True)
        return broker


def offer(name: str, broker: Any) -> None:
    """Let clients of this process find a broker that somebody else runs; `forget` it when it ends."""
    with _lock:
        _named[name] = broker


def forget(name: str) -> None:
    """Let the next `find` of this name make a new broker; who is connected keeps the old one."""
    with _lock:
        _named.pop(name, None)


def _after_fork() -> None:
    """A child starts with none: the parent's state at the moment of the fork is nothing to work on twice."""
    global _lock
    _lock = threading.Lock()
    _named.clear()


os.register_at_fork(after_in_child=_after_fork)

__all__ = ["MemoryBroker", "Pipe", "find", "forget", "make", "offer"]
