"""The files of retained logs in a test's hands: in memory, they outlive a restart; work on them waits or fails.

The archivist is the engine's (engine/archivist.py). Its thread is a list here, and its timers are one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minibrokerd.core.core import Core
from minibrokerd.core.model.inputs import Command
from minibrokerd.core.model.retained import FileWork
from minibrokerd.engine.archivist import Archivist, InMemory

if TYPE_CHECKING:
    from harness import World

Work = tuple[Callable[[], Any], Callable[[Any, BaseException | None], None]]


class _Hand:
    """Notes what is to be done; `WorldFiles.work` does it."""

    def __init__(self, works: deque[Work]) -> None:
        self._works = works

    def __call__(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]
    ) -> None:
        """Note it."""
        self._works.append((work, done))

    def end(self) -> None:
        """Nothing is under way."""


class WorldFiles:
    """The files of all logs. `lag`: what is asked of them waits for `work`, else it is done at once.

    `errors` are raised instead of the next works, in order; None: that one is done. `has_room`: groups get more.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.retained = InMemory()
        self.lag = False
        self.has_room = True
        self.errors: deque[BaseException | None] = deque()
        self.failed: list[BaseException] = []
        self.asked: list[FileWork] = []  # all that was, since the start
        self._works: deque[Work] = deque()
        self._later: list[Callable[[], None]] = []
        self._archivist: Archivist | None = None
        self._lives = 0

    def start(self, core: Core) -> None:
        """A core has read its log: what was asked for before is forgotten, what was done is there."""
        self._works.clear()
        self._later.clear()
        self.asked.clear()
        self._lives += 1
        life = self._lives

        def apply(command: Command) -> None:
            if life == self._lives:
                self._world.apply(command)

        loop: Any = self
        self._archivist = Archivist(
            core,
            self.retained,
            _Hand(self._works),
            loop,
            apply,
            lambda size: self.has_room,
            self.failed.append,
        )
        self._archivist.start(lambda: self._world.unix_ms)

    def ask(self, works: list[FileWork]) -> None:
        """Take what the core asks for."""
        assert self._archivist is not None
        self.asked += works
        self._archivist.ask(works)

    def synced(self) -> None:
        """A batch is safe."""
        if self._archivist is not None:
            self._archivist.synced()

    def call_later(self, after_s: float, callback: Callable[..., None], *args: Any) -> None:
        """As a loop does; `retry` says when the time has come."""
        self._later.append(lambda: callback(*args))

    def retry(self) -> None:
        """Let the time of all timers come that run now."""
        due, self._later = self._later, []
        for callback in due:
            callback()
        self.catch_up()

    def catch_up(self) -> None:
        """Do what waits, unless the files lag."""
        while self._works and not self.lag:
            self.work()

    def work(self) -> None:
        """Do the next thing, and tell the core."""
        done, found, error = self.begin()
        done(found, error)

    def begin(
        self,
    ) -> tuple[Callable[[Any, BaseException | None], None], Any, BaseException | None]:
        """Do the next thing, of which the core is not told yet."""
        work, done = self._works.popleft()
        error = self.errors.popleft() if self.errors else None
        if error is not None:
            return done, None, error
        return done, work(), None

    def kept(self) -> list[int]:
        """Return the numbers of the logs that there are."""
        return self.retained.numbers()

    @property
    def waiting(self) -> int:
        """How many works wait."""
        return len(self._works)
