"""An administrator of a world: settings, looks, purges, redrives, cancels and more, at random times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from checker import Id, Removal
from sim_client import UNKNOWN, Habits, SimulatedClient

from minibroker.contract.wire import pack_runs
from minibroker.session.calls import Call

if TYPE_CHECKING:
    from sim_world import World


KNOWN = 20  # of the newest messages, one is asked for


class Administrator(SimulatedClient):
    """Asks for one thing after the other; the settings of the world come first, on every connection."""

    def __init__(
        self, world: World, seed: int, per_second: float, verbs: list[str], habits: Habits
    ) -> None:
        self._per_second = per_second
        self._verbs = verbs
        super().__init__(world, "admin", habits, seed)

    def start(self) -> None:
        """Begin."""
        super().start()
        for queue, settings in self.world.settings.items():
            self.machine.declarations.declare(queue, settings, overwrite=True)
        self._now_and_then(self._per_second, self._ask)

    def _ask(self) -> None:
        verb = self.random.choice(self._verbs)
        queue = self.random.choice(self.world.queues)
        call: Call = getattr(self, f"_{verb}")(queue)
        if self.random.random() < self.habits.goes:
            self._soon(50_000, self.give_up, call)

    def _peek(self, queue: str) -> Call:
        return self.ask("peek", {"queue": queue, "count": 50}, _seen)

    def _stats(self, queue: str) -> Call:
        return self.ask("stats", {"queue": ""}, _seen)

    def _set(self, queue: str) -> Call:
        settings = self.world.settings[queue]
        return self.ask("queue_set", {"queue": queue, "settings": settings}, _seen)

    def _purge(self, queue: str) -> Call:
        name = queue if self.random.random() < 0.8 else f"{queue}.dlq"
        return self._remove("purge", name, {"queue": name})

    def _delete(self, queue: str) -> Call:
        self.world.deleted = True
        return self._remove("queue_delete", queue, {"queue": queue, "force": 1})

    def _remove(self, op: str, queue: str, fields: dict[str, object]) -> Call:
        removal = Removal(queue, self.world.loop.now_us)
        self.world.checker.removals.append(removal)

        def done(value: Any, error: Exception | None) -> None:
            if error is None:
                removal.done_us = self.world.loop.now_us
            elif getattr(error, "code", "") not in UNKNOWN:
                removal.failed = True
            if op == "queue_delete" and not error:
                self.ask("queue_set", {"queue": queue, "settings": {}}, _seen)

        return self.ask(op, fields, done)

    def _id(self, queue: str) -> Id | None:
        """Return the id of some message that was stored in a queue, whatever became of it."""
        ids = [id for id, intent in self.world.checker.by_id.items() if intent.queue == queue]
        return self.random.choice(ids[-KNOWN:]) if ids else None

    def _explain(self, queue: str) -> Call:
        id = self._id(queue) or (1, 0)
        return self.ask(
            "explain", {"queue": "", "runs": 1}, _seen, columns=pack_runs([(0, *id, 1)])
        )

    def _retime(self, queue: str) -> Call:
        """One that waits is ready later, or at once: when it comes is not judged after this."""
        id = self._id(queue)
        if id is None:
            return self._peek(queue)
        self.world.checker.by_id[id].retimed = True
        self.world.checker.returned()
        fields = {"queue": queue, "runs": 1, "delay_ms": self.random.choice((0, 50, 2_000))}
        return self.ask("retime", fields, _seen, columns=pack_runs([(0, *id, 1)]))

    def _cancel(self, queue: str) -> Call:
        id = self._id(queue)
        if id is None:
            return self._peek(queue)
        cancels = self.world.checker.cancels
        cancels.setdefault(id, False)

        def done(value: Any, error: Exception | None) -> None:
            if error is None and value["cancelled"]:
                cancels[id] = True

        fields = {"queue": queue, "runs": 1}
        return self.ask("cancel_messages", fields, done, columns=pack_runs([(0, *id, 1)]))

    def _redrive(self, queue: str) -> Call:
        self.world.checker.redriven = True
        self.world.checker.returned()
        return self.ask("redrive", {"queue": f"{queue}.dlq", "runs": 0, "count": 0}, _seen)


def _seen(value: Any, error: Exception | None) -> None:
    """Only that the answer can be read matters: the counters are judged where they are made."""
