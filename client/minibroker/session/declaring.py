"""What a program says of its queues: the settings they are to have, asked for on every connection before all else.

A server that has no such queue makes it so; one that has it leaves it as it is, and says how that is. What differs
is told once, not after each reconnect, and kept where the application can ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from minibroker.contract.errors import (
    BadValue,
    Closed,
    MinibrokerError,
    ProtocolError,
    SettingsDiffer,
)
from minibroker.contract.settings import Settings, check_settings
from minibroker.session.calls import Calls
from minibroker.session.events import Differs, Effect, MadeAnew, NotDeclared
from minibroker.session.session import Session

# By name of the setting: what the program asked for, and what the queue has.
Differences = Mapping[str, tuple[int | str, int | str]]
Tell = Callable[[Effect], None]
NOTHING: Final[Differences] = MappingProxyType({})
OPERATIONS: Final = frozenset({"queue_declare", "queue_set"})


def checked(settings: Mapping[str, int | str]) -> Settings:
    """Return settings as the wire has them; BadValue if one is unknown, or outside its range."""
    try:
        return check_settings(dict(settings))
    except ValueError as error:
        raise BadValue(str(error)) from error


class Declaration:
    """The settings that one queue is to have; `differs` is what the server said last."""

    def __init__(self, queue: str, tell: Tell) -> None:
        self.queue = queue
        self.settings: Settings = {}
        self.overwrite = False
        self.exclusive = False
        self.differs = NOTHING
        self.is_refused = False  # for good: the server does not know the operation
        self.call: Any = None  # the newest one
        self.tell = tell
        self._was_there = False  # when it was declared before
        self._told: object = NOTHING  # what differed, or the text of the refusal

    def add(self, settings: Settings, *, overwrite: bool, exclusive: bool = False) -> bool:
        """Take more settings; return whether that is news.

        Raises:
            BadValue: another part of the program says otherwise.
        """
        for name, value in settings.items():
            known = self.settings.get(name, value)
            if known != value:
                raise BadValue(
                    f"this program declares the queue {self.queue!r} with {name}={known!r} "
                    f"and with {name}={value!r}"
                )
        merged = self.settings | settings
        before = self.settings, self.overwrite, self.exclusive
        self.settings, self.overwrite = merged, self.overwrite or overwrite
        self.exclusive = self.exclusive or exclusive
        return before != (self.settings, self.overwrite, self.exclusive)

    def wish(self) -> tuple[str, dict[str, object]]:
        """Return the operation that is asked for, and its fields."""
        fields: dict[str, object] = {"queue": self.queue, "settings": dict(self.settings)}
        if self.exclusive:
            return "queue_declare", fields | {"exclusive": 1}
        return "queue_set" if self.overwrite else "queue_declare", fields

    def compare(self, has: Settings) -> Differences:
        """Note which settings the queue has; return what differs."""
        self.differs = MappingProxyType(
            {
                name: (value, has[name])
                for name, value in self.settings.items()
                if has[name] != value
            }
        )
        return self.differs

    def agreed(self, value: Mapping[str, Any]) -> Settings:
        """Return the settings out of an answer; SettingsDiffer if they are others than declared."""
        if self.compare(value["settings"]):
            raise SettingsDiffer.of(self.queue, self.differs)
        return dict(value["settings"])

    def answered(self, value: Mapping[str, Any]) -> None:
        """Take the answer, and tell what differs unless that was told before."""
        if self._was_there and value.get("created"):
            self.tell(MadeAnew(self.queue))
        self._was_there = True
        differs = self.compare(value["settings"])
        if differs and differs != self._told:
            self.tell(Differs(self.queue, differs))
        self._told = differs

    def refused(self, error: MinibrokerError) -> None:
        """Note that the server refused; nothing was made."""
        self.is_refused = isinstance(error, ProtocolError)
        if not isinstance(error, Closed) and self._told != str(error):
            self.tell(NotDeclared(self.queue, error))
            self._told = str(error)


class _Waiter:
    """Waits for the answer to one asking."""

    def __init__(self, declaration: Declaration) -> None:
        self._declaration = declaration
        self._is_done = False

    def done(self) -> bool:
        """Return whether there is an answer."""
        return self._is_done

    def cancelled(self) -> bool:
        """Nobody gives it up by itself."""
        return False

    def exception(self) -> None:
        """It keeps none."""

    def result(self) -> None:
        """It keeps none."""

    def set_result(self, value: Mapping[str, Any]) -> None:
        """Hand the answer on."""
        self._is_done = True
        self._declaration.answered(value)

    def set_exception(self, error: MinibrokerError) -> None:
        """Hand the refusal on."""
        self._is_done = True
        self._declaration.refused(error)


class Declarations:
    """Those of one client, by queue. They outlive a machine that is given up: another one adopts them."""

    def __init__(self, session: Session, calls: Calls, tell: Tell) -> None:
        self._session = session
        self._calls = calls
        self._tell = tell
        self._all: dict[str, Declaration] = {}

    def declare(
        self, queue: str, settings: Settings, *, overwrite: bool, exclusive: bool = False
    ) -> Declaration:
        """Have a queue with these (checked) settings from now on: asked for at once, or at the next connection."""
        declaration = self._all.get(queue) or Declaration(queue, self._tell)
        if declaration.add(settings, overwrite=overwrite, exclusive=exclusive):
            self._all[queue] = declaration
            if self._session.is_open:
                self._ask(declaration)
        return declaration

    def adopt(self, others: Declarations) -> None:
        """Go on with what was declared to another machine."""
        self._all = others._all
        for declaration in self._all.values():
            declaration.call, declaration.tell = None, self._tell

    def welcomed(self) -> list[bytes]:
        """Return what is to be written first on a new connection: before a frame that makes one with defaults."""
        for declaration in self._all.values():
            # One without an answer is asked again by the session.
            is_asked = declaration.call is not None and not declaration.call.waiter.done()
            if not is_asked and not declaration.is_refused:
                self._ask(declaration)
        return self._session.requests.write(OPERATIONS)

    def _ask(self, declaration: Declaration) -> None:
        if declaration.call is not None and not declaration.call.waiter.done():
            self._calls.gave_up(declaration.call)
        operation, fields = declaration.wish()
        declaration.call = self._calls.ask(_Waiter(declaration), operation, fields, None)
