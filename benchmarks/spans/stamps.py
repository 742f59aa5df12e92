"""Stamps in one process: functions that note when they were called, when they ended, and in which thread."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from threading import get_ident
from time import monotonic_ns
from typing import Any, Final

RESULT: Final = "()"  # behind a name: not that function is meant, but the one that it returns
COSTED: Final = 20_000  # calls by which the cost of a stamp is measured

Call = tuple[int, int, int]  # begin and end in ns of the monotonic clock, thread
Only = Callable[..., bool]  # whether a call with these arguments counts


class Stamps:
    """What the stamps of this process have noted, by the names of `table.py`."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Call]] = {}

    def put(self, name: str, only: Only | None = None) -> None:
        """Put a stamp around a function, named as `package.module:Class.function`.

        Raises:
            AttributeError, ImportError: there is no such thing.
        """
        module, _, path = name.removesuffix(RESULT).partition(":")
        *owners, last = path.split(".")
        owner = functools.reduce(getattr, owners, import_module(module))
        function = getattr(owner, last)
        put = self._around_result if name.endswith(RESULT) else self.around
        setattr(owner, last, put(name, function, only))

    def around(
        self, name: str, function: Callable[..., Any], only: Only | None = None
    ) -> Callable[..., Any]:
        """Return a function that does the same and notes it."""
        note = self.calls.setdefault(name, []).append

        @functools.wraps(function)
        def stamped(*args: Any, **named: Any) -> Any:
            begin = monotonic_ns()
            try:
                return function(*args, **named)
            finally:
                note((begin, monotonic_ns(), get_ident()))

        @functools.wraps(function)
        def looked_at(*args: Any, **named: Any) -> Any:
            return (stamped if only is not None and only(*args) else function)(*args, **named)

        return stamped if only is None else looked_at

    def _around_result(
        self, name: str, function: Callable[..., Any], only: Only | None
    ) -> Callable[..., Any]:
        self.calls.setdefault(name, [])

        @functools.wraps(function)
        def made(*args: Any, **named: Any) -> Any:
            result = function(*args, **named)
            return None if result is None else self.around(name, result, only)

        return made

    def note(self, name: str, begin: int, end: int) -> None:
        """Note what the workload itself did."""
        self.calls.setdefault(name, []).append((begin, end, get_ident()))

    def write(self, path: Path) -> None:
        """Write all that was noted, for the process that joins it, and what one stamp costs here."""
        path.write_text(json.dumps({"cost_ns": stamp_cost_ns(), "calls": self.calls}), "utf-8")


def put_all(names: Mapping[str, Only | None] | Iterable[str]) -> Stamps:
    """Put stamps around functions, and return what they note."""
    stamps = Stamps()
    for name in names:
        stamps.put(name, names[name] if isinstance(names, Mapping) else None)
    return stamps


def stamp_cost_ns() -> float:
    """Return how much longer a call takes for its stamp."""

    def nothing(argument: object) -> None:
        """Do nothing: what is left is the call."""

    stamped = Stamps().around("", nothing)
    return (_call(stamped) - _call(nothing)) / COSTED


def _call(function: Callable[[object], None]) -> int:
    begin = monotonic_ns()
    for _ in range(COSTED):
        function(None)
    return monotonic_ns() - begin
