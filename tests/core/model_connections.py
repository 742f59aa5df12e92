"""The clients of the model test: what they connect with, what they have, and how what comes to them is judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core_client import Client, Delivered
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from model_frames import Sent
from modelled import Id
from watched import Watched, see_dead_moved, see_expired

from minibroker.contract.settings import default_settings
from minibroker.session.settle_frames import NOT_ALL
from minibrokerd.core.durable import paging
from minibrokerd.core.model.effects import Outgoing
from minibrokerd.core.model.kept import DEDUPE
from minibrokerd.core.model.sums import Sums
from minibrokerd.core.verbs import going_on
from minibrokerd.core.verbs.takers import is_awaiting
from model import Durable, Model

indices = st.integers(0, 2**16)
# So that a handful of messages can leave memory, and two of them are many that begin.
SMALL: dict[tuple[Any, str], int] = {
    (paging, "AHEAD_MESSAGES"): 2,
    (Sums, "large_bytes"): 0,
    (going_on, "FEW"): 1,
}
rarely = st.sampled_from([False, False, False, True])
KEY_CONCURRENCY = st.sampled_from([0, 1, 1, 2])
NO_TERMS = (0, 0, 0, 0)


class Connections(RuleBasedStateMachine):
    """Who is connected, and has what."""

    # Rules of the machine, which stand in model_steps.py and test_model.py.
    change_settings: Callable[[int, int, int, int, str, int], None]
    time_passes: Callable[[int], None]
    publish: Callable[..., None]
    consume: Callable[[int, str, int, int], None]
    sync: Callable[[], None]
    _do: Callable[[Client, Sent, int, Any], None]

    def __init__(self) -> None:
        super().__init__()
        self.limits = {(owner, name): getattr(owner, name) for owner, name in SMALL}
        for (owner, name), value in SMALL.items():
            setattr(owner, name, value)
        self.world = Watched()
        self.model = Model()
        self.durables: list[Durable] = []  # of the closed batches
        self.safe = Durable()
        self.entering: list[tuple[int, list[Id]]] = []
        self.clients: list[Client] = []
        self.gone: list[Client] = []
        self.got: dict[int, list[Delivered]] = {}  # by session, newest last
        self.sent: dict[int, dict[int, Sent]] = {}
        self.consumers: dict[tuple[int, int], int] = {}  # prefetch by (connection, consumer)
        self.waiting: dict[int, int] = {}  # by connection, of whom it was said, and nothing came
        self.newest_token = 0
        self.bodies = 0
        self.forgotten = False
        self.welcome: dict[str, Any] = {}
        self.confirmed: set[Id] = set()
        self.acked: set[Id] = set()
        self._now()
        self.connect()

    @initialize(key_concurrency=KEY_CONCURRENCY)
    def begin_with(self, key_concurrency: int) -> None:
        """Three messages, and a consumer that can take three."""
        self.change_settings(0, 3, 2_000, 100, "sync", key_concurrency)
        self.publish(0, [0, 0, 0], ["a", "a", ""], NO_TERMS, safe=True)
        self.consume(0, "q", 3, 1)

    def teardown(self) -> None:
        """Give the limits back that were made small."""
        for (owner, name), value in self.limits.items():
            setattr(owner, name, value)

    # -- helpers --------------------------------------------------------------------------------

    def _now(self) -> None:
        self.model.now_ms, self.model.unix_ms = self.world.now_ms, self.world.unix_ms
        self.model.dlq_exists = "q.dlq" in self.world.store.queues
        self.model.kept.now(self.model.unix_ms, self._dedupes())
        for name in self.model.settings:
            queue = self.world.store.queues.get(name)
            self.model.settings[name] = dict(queue.settings) if queue else default_settings()
        self.model.circuits.settings_are_others()
        queues = self.world.store.queues.values()
        self.model.awaits = {q.name for q in queues if is_awaiting(self.world.store, q)}
        if self.model.awaits:
            self.model.awaited_ms = self.world.now_ms

    def _dedupes(self) -> dict[str, Id]:
        """Return the dedupe ids that the core knows; those of `q`, as no others are published."""
        return {
            str(entry.key[1]): (int(entry.value[0]), int(entry.value[1]))
            for entry in self.world.store.kept.of(DEDUPE)
            if entry.value is not None and entry.expires_unix_ms > self.world.unix_ms
        }

    def _client(self, index: int) -> Client:
        if not self.clients:
            self.connect()
        return self.clients[index % len(self.clients)]

    def _pick(self, client: Client, index: int, count: int) -> list[Delivered]:
        got = self.got[client.session]
        if index % 4:  # mostly what it still has
            live = [m for m in got if self.model.holds(client.session, m.queue, m.token, m.id)]
            got = live or got
        if not got:
            return []
        at = max(len(got) - 1 - index % 8, 0)
        picked = got[at : at + count]
        return [message for message in picked if message.queue == picked[0].queue]

    def _said(self, client: Client, consumer: int | None) -> None:
        """A frame that says that a handler of a consumer waits was applied, for the first time."""
        if consumer is None:
            return
        self.waiting[client.connection] = 0
        known = self.world.store.connections[client.connection].consumers.get(consumer)
        if known is not None:
            queue = self.world.store.by_number[known.queue_number].name
            if not any(message.state == "READY" for message in self.model.of(queue)):
                self.waiting[client.connection] = consumer

    def _observe(self) -> None:
        """Apply to the model what the core handed out, and read what arrived."""
        see_dead_moved(self.world, self.model)
        see_expired(self.world, self.model)
        made, self.world.made = self.world.made, []
        for outgoing in made:
            self._handed_out(outgoing)
        for client in self.clients:
            inbox, client.inbox = client.inbox, []
            for frame in inbox:
                self._arrived(client, frame)

    def _handed_out(self, outgoing: Outgoing) -> None:
        header = outgoing.header
        if not header["count"]:
            return
        assert header["token"] > self.newest_token, "a token did not grow"
        self.newest_token = header["token"]
        consumer, waits = header.get("consumer"), self.waiting.pop(outgoing.connection, 0)
        reader = Client(self.world, outgoing.connection, "reader")
        self.world.clients, clients = {outgoing.connection: reader}, self.world.clients
        self.world._send(outgoing)
        self.world.clients = clients
        messages = reader.messages()
        may_begin = len(messages) == 1 and header["lease_ms"] >= 1_000 and not messages[0].marked
        is_begun = consumer is None or (consumer == waits and may_begin)
        assert header.get("begun", False) == is_begun
        for got in messages:
            message = self.model.messages.get(got.id)
            assert message is not None, f"{got.id} had ended"
            assert got.id not in self.acked, f"{got.id} was acked, and that was confirmed"
            assert (message.queue, message.state) == (got.queue, "READY")
            late = self.model.may_expire(message) and message.expires_ms <= self.world.now_ms
            assert not late, "handed out though its time to live was over"
            assert (got.attempt, got.marked) == (message.charged + 1, message.marked)
            assert (got.body, got.key) == (message.body, message.key)
            is_paused = message.queue == "q" and self.model.kept.paused_until_unix_ms
            assert not is_paused, "its queue is paused"
            assert self.model.may_go(message), "its key is closed"
            assert message is self.model.first_of_lane(message), "not the first of its lane"
            self.model.hand_out(
                message,
                got.token,
                outgoing.connection,
                header["lease_ms"],
                begun=header.get("begun", False),
                handed="consumer" in header,
            )

    def _arrived(self, client: Client, frame: dict[str, Any]) -> None:
        if frame["op"] == "deliver":
            self.got[client.session] += frame["messages"]
        elif frame["op"] == "welcome":
            self.welcome = frame
        elif "through" in frame:
            assert client.connection % 2, "its client does not know that"
            for sequence in range(frame["sequence"], frame["through"] + 1):
                self._arrived(client, client.answer_alone(sequence))
        elif "sequence" in frame:
            sent = self.sent[client.session][frame["sequence"]]
            assert frame["op"] == "confirm", frame
            assert sent.answer in (None, frame), "two answers to one frame"
            sent.answer = frame
            self._confirmed(sent, frame)

    def _confirmed(self, sent: Sent, frame: dict[str, Any]) -> None:
        if sent.kind in ("publish", "step"):
            result = frame["results"][-1]
            assert not sent.stored or result["origin"] == sent.stored[0][0]
            if result["durability"] == "sync":
                self.confirmed.update(sent.stored)
            assert frame["lost_runs"] == sent.duplicates
        if sent.kind == "publish":
            return
        lost = set(frame["lost_runs"]) if sent.kind != "step" else set()
        singles = {(t, o, first + i, 1) for t, o, first, n in lost for i in range(n)}
        assert singles == set(sent.lost)
        if sent.kind in ("ack", "step"):
            self.acked.update(
                m.id for m in sent.messages if m.run not in singles and m.id in self.confirmed
            )

    # -- connections ----------------------------------------------------------------------------

    @rule()
    def connect(self) -> None:
        if len(self.clients) < 3:
            self._add(self.world.hello("c"))

    def _add(self, client: Client) -> None:
        if client.connection % 2:
            client.send(client.frame([{"op": "accept", "through": 1}]))
        self.clients.append(client)
        self.got.setdefault(client.session, [])
        self.sent.setdefault(client.session, {})
        self.model.connected[client.connection] = client.session

    def _end(self, client: Client, *, marked: bool = True) -> None:
        self.clients.remove(client)
        self.gone.append(client)
        self.model.connection_ends(client.connection, marked=marked)
        del self.model.connected[client.connection]
        self.consumers = {k: v for k, v in self.consumers.items() if k[0] != client.connection}
        self.waiting.pop(client.connection, None)

    @rule(index=indices)
    def disconnect(self, index: int) -> None:
        client = self._client(index)
        self.world.disconnect(client)
        self._end(client)
        self._observe()

    @rule(index=indices, really=rarely)
    def goodbye(self, index: int, really: bool) -> None:
        if not really:
            self.time_passes(0)
            return
        client = self._client(index)
        client.send(client.frame([{"op": "goodbye"}]))
        self._end(client, marked=False)
        self.sent[client.session] = {}
        self._observe()

    @precondition(lambda self: bool(self.gone))
    @rule(index=indices, count=st.integers(0, 4), back=indices, has_more=rarely)
    def resume(self, index: int, count: int, back: int, has_more: bool) -> None:
        """What is not named was never seen, if it was begun as it was handed out; `has_more`: not all is named."""
        old = self.gone.pop(index % len(self.gone))
        begun = self._pick(old, back, count)
        seen: dict[Id, Delivered] = {message.id: message for message in begun}
        client = self.world.resume(old, seen.values(), runs=[NOT_ALL] if has_more else ())
        client.sent = old.sent
        self._now()
        self._add(client)
        expected = [message.run for message in seen.values() if not self._keeps(client, message)]
        if not has_more:
            self.model.unseen(client.session, client.connection)
        self._observe()
        self.sync()
        cancelled = self.welcome["lost_runs"][: self.welcome.get("cancelled", 0)]
        assert {run[1:3] for run in cancelled} <= self.model.cancelled  # they come first
        assert sorted(self.welcome["lost_runs"]) == sorted(expected)
        for sequence in sorted(self.sent[client.session]):
            self._resend(client, sequence)

    def _keeps(self, client: Client, message: Delivered) -> bool:
        delivery = self.world.store.deliveries.get(message.token)
        known = self.model.messages.get(message.id)
        lease_ms = self.model.lease_ms_of(known) if known is not None else 0
        if delivery is not None:
            lease_ms = delivery.lease_ms
        return self.model.resume(
            client.session, client.connection, message.token, message.id, lease_ms
        )

    def _resend(self, client: Client, sequence: int) -> None:
        sent = self.sent[client.session][sequence]
        if sequence < client.answered_below or self.forgotten:
            return
        if not sent.known:
            self._do(client, sent, sequence, lambda: client.send(sent.payload))
            return
        window = self.world.store.sessions[client.session].window
        outcome = window[sequence]
        client.send(sent.payload)
        assert window[sequence] is outcome, "a frame was applied twice"
        self._observe()
