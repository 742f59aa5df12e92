"""How an application of a world publishes, and what it is told of each message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

from checker import Id, Intent
from sim_answer import Answer
from sim_capabilities import Wish

from minibroker.contract.confirms import Confirm
from minibroker.contract.wire import pack_runs
from minibroker.session.calls import Call
from minibroker.session.exchange_wishes import RouteTerms, route_place
from minibroker.session.outbox import (
    GROUP_MESSAGES,
    MESSAGE_RESERVE,
    NAMES_RESERVE,
    Key,
    PublishGroup,
)
from minibroker.session.route_groups import MARK, RouteGroup

if TYPE_CHECKING:
    from sim_client import SimulatedClient

UNKNOWN = ("outcome_unknown", "connection_lost", "timeout", "closed")  # it may have been done


class Publisher:
    """The publishing side of one process; what its client draws decides what, and how much."""

    def __init__(self, client: SimulatedClient) -> None:
        self._client = client
        self._count = 0
        self._wishes = Random(f"wishes of {client.world.seed} {client.name}")  # of its own

    def publish(self) -> None:
        """Publish some messages to one queue."""
        client = self._client
        if client.world.laws.is_bound and self._wishes.random() < 0.3:
            self._route()
            return
        random, habits = client.random, client.habits
        queue = random.choice(client.world.queues)
        timeout_ms = client.timeout_ms
        if habits.goes and random.random() < 0.2:
            timeout_ms = random.choice((20, 300, 2_000))
        for _ in range(random.randint(1, habits.most_in_batch)):
            self._count += 1
            delay_ms = (
                random.choice((1, 50, 900, 12_000)) if random.random() < habits.delayed else 0
            )
            name = b"k%d" % random.randrange(3) if random.random() < habits.keyed else b""
            body = f"{client.name}-{self._count}:".encode()
            body += bytes(random.choice((0, 5, 100, client.world.largest_body)))
            wish = self.wish(queue)
            wish = replace(wish, key=wish.key or name)
            self._add((queue, timeout_ms, *wish.terms), body, wish, delay_ms)
        client.schedule()

    def _route(self) -> None:
        """Publish a message to the exchange, which leads it to every queue."""
        client, world = self._client, self._client.world
        self._count += 1
        body = f"{client.name}-{self._count}:".encode()
        body += bytes(self._wishes.choice((0, 100, world.largest_body)))
        delay_ms = self._wishes.choice((0, 0, 50, 900))
        sent_us = world.loop.now_us
        intents = [
            Intent(
                body, client.name, queue, sent_us, delay_ms, plain=False, siblings=(),
                ttl_ms=world.settings[queue].get("message_ttl_ms", 0),
            )
            for queue in world.queues
        ]  # fmt: skip
        for intent in intents:
            if (
                not world.checker.removals
            ):  # else one of them may be a new queue, which nothing leads to
                intent.siblings = tuple(other for other in intents if other is not intent)
            world.checker.intend(intent)
        terms: RouteTerms = (client.timeout_ms / 1_000, None, None, 0, None)
        where = route_place("led", "to.all", (), client.timeout_ms, terms)
        group = self._group(where, len(body) + MESSAGE_RESERVE)

        def told(value: Any, error: Exception | None) -> None:
            if error is not None:
                self.refused(intents, error)
                return
            for intent in intents:
                if intent.queue in value.ids:
                    world.checker.stored(intent, tuple(value.ids[intent.queue]), world.loop.now_us)
                    world.laws.stored(intent)
                else:
                    world.checker.refused(intent)

        answer = Answer(client, "publish", group.deadline_ms, told)
        group.add(answer, b"", body, 0, b"", delay_ms)
        client.schedule()
        if client.random.random() < client.habits.goes:
            client.soon(20_000, self._take_back, answer, intents)

    def wish(self, queue: str, *, named: bool = True) -> Wish:
        """Return what more is asked of a message, once the settings are there that say what becomes of it.

        `named`: it may have a unique key and a dedupe id.
        """
        world = self._client.world
        if not world.laws.is_standing(queue):
            return Wish()
        wish = world.uses.wish(self._wishes, queue)
        return wish if named else replace(wish, unique=b"", unique_mode="", dedupe=b"")

    def intend(self, queue: str, body: bytes, wish: Wish, delay_ms: int) -> Intent:
        """Let the books have one message that is about to be published."""
        world = self._client.world
        intent = Intent(
            body, self._client.name, queue, world.loop.now_us, delay_ms,
            not (delay_ms or wish != Wish()), wish.key, wish.priority,
            wish.ttl_ms or world.settings[queue].get("message_ttl_ms", 0),
            wish.unique, wish.unique_mode, wish.dedupe,
        )  # fmt: skip
        world.checker.intend(intent)
        return intent

    def _add(self, key: Key, body: bytes, wish: Wish, delay_ms: int) -> None:
        """Put one message into the open group, as `Queue.publish` does."""
        client = self._client
        intent = self.intend(key[0], body, wish, delay_ms)
        name, names = wish.key, [(wish.unique, wish.dedupe)]
        cost = len(body) + len(name) + MESSAGE_RESERVE
        cost += sum(map(len, names[0])) + NAMES_RESERVE if any(names[0]) else 0
        group = self._group(key, cost)

        def told(value: Any, error: Exception | None) -> None:
            if error is None:
                self._stored(intent, value)
            else:
                self.refused([intent], error)

        answer = Answer(client, "publish", group.deadline_ms, told)
        if group.plain and not (name or delay_ms or any(names[0])):
            group.waiters.append(answer)
            group.blob.append(body)
        else:
            group.add(answer, b"", body, 0, name, delay_ms)
            group.name_last(names)
        if client.random.random() < client.habits.goes:
            client.soon(20_000, self._take_back, answer, [intent])

    def _stored(self, intent: Intent, confirm: Confirm) -> None:
        world = self._client.world
        id, now_us = (confirm.origin, confirm.sequence), world.loop.now_us
        if confirm.duplicate:
            world.laws.duplicate(intent, id, now_us)
            return
        world.checker.stored(intent, id, now_us)
        world.laws.stored(intent)
        if "result" in world.uses.names and self._wishes.random() < 0.3:
            self.ask_result(intent.queue, id, self._wishes.choice((0, 10_000)))
        if confirm.replaced is not None:
            world.checker.cancels[confirm.replaced] = True
            world.laws.cancelled(confirm.replaced, now_us)

    def ask_result(self, queue: str, id: Id, wait_ms: int) -> Call:
        """Ask what a message came to: what is heard is what its worker said, and it is over."""
        world = self._client.world

        def told(value: Any, error: Exception | None) -> None:
            if error is None and value["state"] == "DONE":
                world.laws.done(id, value.get("result", b""), world.loop.now_us)

        fields = {"queue": queue, "runs": 1, "wait_ms": wait_ms}
        within_ms = wait_ms + self._client.timeout_ms
        return self._client.ask("result", fields, told, within_ms, columns=pack_runs([(0, *id, 1)]))

    def refused(self, intents: Sequence[Intent], error: Exception) -> None:
        """Note what a publish was told that did not go well."""
        code = getattr(error, "code", "")
        self._client.world.note(f"{self._client.name} refused: {code}")
        if code not in UNKNOWN:
            for intent in intents:
                self._client.world.checker.refused(intent)

    def _group(self, key: Key, cost: int) -> PublishGroup:
        client = self._client
        outbox = client.session.outbox
        group = outbox.open.get(key)
        if group is not None:
            if group.takes(1, cost, outbox.group_bytes) and group.count < GROUP_MESSAGES:
                return group
            outbox.close(key)
            client.flush()
        make = RouteGroup if key[0].startswith(MARK) else PublishGroup
        return client.machine.publishes.open_group(key, client.now_ms(), make)

    def _take_back(self, answer: Answer, intents: Sequence[Intent]) -> None:
        """Go without the answer: what was not written by now never is."""
        waits = any(answer in group.waiters for group in self._client.session.outbox.groups)
        if answer.cancel() and waits:
            for intent in intents:
                self._client.world.checker.refused(intent)
