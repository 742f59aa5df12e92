"""An administrator of a world: settings, peeks, counters, purges, redrives, deletions, at random times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from checker import Removal
from sim_client import Habits, SimulatedClient

if TYPE_CHECKING:
    from sim_world import World

IDLE = Habits(0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)


class Administrator(SimulatedClient):
    """Asks for one thing after the other."""

    def __init__(self, world: World, seed: int, per_second: float, verbs: list[str]) -> None:
        self._per_second = per_second
        self._verbs = verbs
        self._is_set = False
        super().__init__(world, "admin", IDLE, seed)

    def _revive(self) -> None:
        super()._revive()
        self._later(self._per_second, self._ask)

    def welcomed(self) -> None:
        """The settings of the world come first."""
        if not self._is_set:
            self._is_set = True
            for queue, settings in self.world.settings.items():
                part = {"queue": queue, "settings": settings}
                self.session.request("queue_set", part, None)

    def _ask(self) -> None:
        if self.quiet:
            return
        self._later(self._per_second, self._ask)
        if not self.session.is_open:
            return
        verb = self.random.choice(self._verbs)
        queue = self.random.choice(self.world.queues)
        getattr(self, f"_{verb}")(queue)
        self.flush_soon()

    def _peek(self, queue: str) -> None:
        self.session.request("peek", {"queue": queue, "count": 50}, _seen)

    def _stats(self, queue: str) -> None:
        self.session.request("stats", {"queue": ""}, _seen)

    def _set(self, queue: str) -> None:
        settings = self.world.settings[queue]
        self.session.request("queue_set", {"queue": queue, "settings": settings}, _seen)

    def _purge(self, queue: str) -> None:
        name = queue if self.random.random() < 0.8 else f"{queue}.dlq"
        self._remove("purge", name, {"queue": name})

    def _delete(self, queue: str) -> None:
        self.world.deleted = True
        self._remove("queue_delete", queue, {"queue": queue, "force": 1})

    def _remove(self, op: str, queue: str, fields: dict[str, object]) -> None:
        removal = Removal(queue, self.world.loop.now_us)
        self.world.checker.removals.append(removal)

        def done(value: Any, error: Exception | None) -> None:
            code = getattr(error, "code", "")
            if error is None:
                removal.done_us = self.world.loop.now_us
            elif code != "connection_lost":
                removal.failed = True
            if op == "queue_delete" and not error:
                self.session.request("queue_set", {"queue": queue, "settings": {}}, _seen)

        self.session.request(op, fields, done)

    def _redrive(self, queue: str) -> None:
        self.world.checker.redriven = True
        self.world.checker.returned()
        self.session.request("redrive", {"queue": f"{queue}.dlq", "runs": 0, "count": 0}, _seen)


def _seen(value: Any, error: Exception | None) -> None:
    """Only that the answer can be read matters: the counters are judged where they are made."""
