"""An administrator of a world: settings, looks, purges, redrives, cancels and more, at random times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from checker import Id, Removal
from sim_client import Habits, SimulatedClient
from sim_laws import Pause
from sim_publisher import UNKNOWN

from minibroker.contract.wire import pack_runs
from minibroker.session.calls import Call

if TYPE_CHECKING:
    from sim_world import World


EXCHANGE = "led"
POLICED = "retry_jitter_percent"  # nobody chooses it, and no law is about it
FOR_EVER_MS = 600_000  # beyond the end of the world
KNOWN = 20  # of the newest messages, one is asked for


class Administrator(SimulatedClient):
    """Asks for one thing after the other; the settings of the world come first, on every connection."""

    def __init__(
        self, world: World, seed: int, per_second: float, verbs: list[str], habits: Habits
    ) -> None:
        self._per_second = per_second
        self._verbs = verbs
        self._resting: dict[str, None] = {}  # clients, some of them long gone
        self._policies_asked = 0
        self._policy: int | None = (
            20  # what it says of POLICED, or the default; None: that is not known
        )
        super().__init__(world, "admin", habits, seed)

    def start(self) -> None:
        """Begin."""
        super().start()
        for queue, settings in self.world.settings.items():
            self.machine.declarations.declare(queue, settings, overwrite=True)
            if self.world.uses.names:
                self._set(queue)
        if "exchange" in self.world.uses.names:
            self._make_exchange()
        if "policy" in self.world.uses.names:
            self._policy_set("")
            self._now_and_then(20, self._look_at_one)
        self._now_and_then(self._per_second, self._ask)

    def _make_exchange(self) -> None:
        """Let an exchange lead to every queue."""
        left = list(self.world.queues)

        def told(value: Any, error: Exception | None) -> None:
            if error is not None:
                self.soon(50_000, self._make_exchange)
            elif left:
                fields = {"exchange": EXCHANGE, "queue": left.pop(), "pattern": "#.all"}
                self.ask("bind", fields, told, FOR_EVER_MS)
            else:
                self.world.laws.is_bound = True

        fields = {"name": EXCHANGE, "type": "topic", "unroutable": "drop"}
        self.ask("exchange_set", fields, told, FOR_EVER_MS)

    def _bind(self, queue: str) -> Call:
        fields = {"exchange": EXCHANGE, "queue": queue, "pattern": "#.all"}
        return self.ask("bind", fields, _seen)

    def _police(self, op: str, fields: dict[str, object], says: int) -> Call:
        """Change the policy of all queues: what it says is known while nothing else was asked since."""
        self._policies_asked += 1
        asked, self._policy = self._policies_asked, None

        def told(value: Any, error: Exception | None) -> None:
            if error is None and asked == self._policies_asked:
                self._policy = says

        return self.ask(op, {"name": "p"} | fields, told)

    def _policy_set(self, queue: str) -> Call:
        says = self.random.randint(21, 99)
        fields: dict[str, object] = {"pattern": "*", "settings": {POLICED: says}}
        return self._police("policy_set", fields, says)

    def _policy_delete(self, queue: str) -> Call:
        return self._police("policy_delete", {}, 20)

    def _look_at_one(self) -> None:
        self._shown(self.random.choice(self.world.queues))

    def _shown(self, queue: str) -> Call:
        """P1: from when a policy is confirmed each queue goes by it, whatever was down meanwhile."""
        asked, expected, world = self._policies_asked, self._policy, self.world

        def told(value: Any, error: Exception | None) -> None:
            if error is None and expected is not None and asked == self._policies_asked:
                world.laws.judged += 1
                has = value["settings"][POLICED]
                if has != expected:
                    world.checker.violation("P1", f"{queue} has {has}, and its policy {expected}")

        return self.ask("queue_show", {"queue": queue}, told)

    def _bindings(self, queue: str) -> Call:
        return self.ask("bindings", {"exchange": EXCHANGE}, _seen)

    def calm_down(self) -> None:
        """Let all go on that was paused: a pause ends by the wall clock, which may have been set back."""
        super().calm_down()
        laws = self.world.laws
        for queue, key in {(pause.queue, pause.key): None for pause in laws.pauses}:
            laws.pauses.append(Pause(queue, key, self.world.loop.now_us, 0))
            fields: dict[str, object] = {"queue": queue}
            fields |= {"key": key.decode(), "pause_ms": 0} if key else {}
            self.ask("key_set" if key else "unpause", fields, _seen, FOR_EVER_MS)
        for client in self._resting:
            self.ask("unpause", {"client": client}, _seen, FOR_EVER_MS)

    def _ask(self) -> None:
        verb = self.random.choice(self._verbs)
        queue = self.random.choice(self.world.queues)
        call: Call = getattr(self, f"_{verb}")(queue)
        if self.random.random() < self.habits.goes:
            self.soon(50_000, self.give_up, call)

    def _peek(self, queue: str) -> Call:
        return self.ask("peek", {"queue": queue, "count": 50}, _seen)

    def _stats(self, queue: str) -> Call:
        return self.ask("stats", {"queue": ""}, _seen)

    def _set(self, queue: str) -> Call:
        settings = dict(self.world.settings[queue])

        def told(value: Any, error: Exception | None) -> None:
            if error is None:
                self.world.laws.stands(queue, settings, self.world.loop.now_us)

        return self.ask("queue_set", {"queue": queue, "settings": settings}, told)

    def _purge(self, queue: str) -> Call:
        name = queue if self.random.random() < 0.8 else f"{queue}.dlq"
        return self._remove("purge", name, {"queue": name})

    def _delete(self, queue: str) -> Call:
        self.world.deleted = True
        self.world.laws.falls(queue)
        return self._remove("queue_delete", queue, {"queue": queue, "force": 1})

    def _remove(self, op: str, queue: str, fields: dict[str, object], key: bytes = b"") -> Call:
        removal = Removal(queue, self.world.loop.now_us, key)
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
                self.world.laws.cancelled(id, self.world.loop.now_us)

        fields = {"queue": queue, "runs": 1}
        return self.ask("cancel_messages", fields, done, columns=pack_runs([(0, *id, 1)]))

    def _cancel_key(self, queue: str) -> Call:
        key = f"k{self.random.randrange(3)}"
        fields: dict[str, object] = {"queue": queue, "runs": 0, "key": key}
        return self._remove("cancel_messages", queue, fields, key.encode())

    def _result(self, queue: str) -> Call:
        id = self._id(queue)
        if id is None:
            return self._peek(queue)
        return self.publisher.ask_result(queue, id, self.random.choice((0, 200, 3_000)))

    def _pause(self, queue: str) -> Call:
        for_ms = self.random.choice((50, 400, 2_000))
        fields: dict[str, object] = {"queue": queue, "for_ms": for_ms}
        return self._stop("pause", fields, Pause(queue, b"", self.world.loop.now_us, for_ms))

    def _pause_key(self, queue: str) -> Call:
        key, for_ms = f"k{self.random.randrange(3)}", self.random.choice((50, 400, 2_000))
        fields: dict[str, object] = {"queue": queue, "key": key, "pause_ms": for_ms}
        pause = Pause(queue, key.encode(), self.world.loop.now_us, for_ms)
        return self._stop("key_set", fields, pause)

    def _unpause(self, queue: str) -> Call:
        return self._stop("unpause", {"queue": queue}, Pause(queue, b"", self.world.loop.now_us, 0))

    def _stop(self, op: str, fields: dict[str, object], pause: Pause) -> Call:
        """Pause something, for as long as it says, or let it go on."""
        self.world.laws.pauses.append(pause)

        def told(value: Any, error: Exception | None) -> None:
            if error is None:
                pause.done_us = self.world.loop.now_us

        return self.ask(op, fields, told)

    def _weigh_key(self, queue: str) -> Call:
        key, weight = f"k{self.random.randrange(3)}", self.random.randint(1, 4)
        return self.ask("key_set", {"queue": queue, "key": key, "weight": weight}, _seen)

    def _rest(self, queue: str) -> Call:
        """Some client gets nothing for a while; whose turn it would be nobody says."""
        client = self.random.choice(self.world.clients).name
        self._resting[client] = None
        return self.ask("pause", {"client": client, "for_ms": 300}, _seen)

    def _redrive_start(self, queue: str) -> Call:
        """The server sends dead messages back by itself, some first, and so many in a second."""
        self._rise()
        fields: dict[str, object] = {"queue": f"{queue}.dlq", "runs": 0}
        fields |= {"rate": self.random.choice((0, 5, 100)), "canary": self.random.choice((0, 2))}
        return self.ask("redrive_start", fields, _seen)

    def _redrive_some(self, queue: str) -> Call:
        self._rise()
        fields: dict[str, object] = {"queue": f"{queue}.dlq", "runs": 0, "error_class": "E"}
        return self.ask("redrive", fields, _seen)

    def _error_groups(self, queue: str) -> Call:
        return self.ask("error_groups", {"queue": f"{queue}.dlq", "count": 0}, _seen)

    def _rise(self) -> None:
        self.world.checker.redriven = True
        self.world.checker.returned()

    def _redrive(self, queue: str) -> Call:
        self._rise()
        return self.ask("redrive", {"queue": f"{queue}.dlq", "runs": 0, "count": 0}, _seen)


def _seen(value: Any, error: Exception | None) -> None:
    """Only that the answer can be read matters: the counters are judged where they are made."""
