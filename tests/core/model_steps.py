"""The steps of clients and of the disk, each done to the core and to the model (test_model.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core_client import Client, Delivered, settle_part
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from model import Durable, Id, Model, Modelled
from model_frames import Sent, step_frame
from watched import Watched, see_dead_moved

from minibroker.contract.settings import default_settings
from minibrokerd.core.durable import paging
from minibrokerd.core.model.effects import Outgoing
from minibrokerd.core.model.sums import Sums

TICK_MS = 8
SETTLES = ("ack", "nack", "reject", "release", "extend")
indices = st.integers(0, 2**16)
# So that a handful of messages can leave memory.
SMALL: dict[tuple[Any, str], int] = {(paging, "AHEAD_MESSAGES"): 2, (Sums, "large_bytes"): 0}
rarely = st.sampled_from([False, False, False, True])
TERMS = st.sampled_from([(0, 0), (0, 0), (0, 0), (1, 0), (0, 900), (4, 5_000)])


class Clients(RuleBasedStateMachine):
    """Steps of clients, of the disk, of time and of fate."""

    # Rules of the machine, which stand in test_model.py.
    change_settings: Callable[[int, int, int, int, str], None]
    time_passes: Callable[[int], None]

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
        self.newest_token = 0
        self.bodies = 0
        self.forgotten = False
        self.welcome: dict[str, Any] = {}
        self.confirmed: set[Id] = set()
        self.acked: set[Id] = set()
        self._now()
        self.connect()
        self.change_settings(0, 3, 2_000, 100, "sync")
        self.publish(0, [0, 0, 0], ["", "a", ""], (0, 0), safe=True)
        self.consume(0, "q", 3, 1)

    def teardown(self) -> None:
        """Give the limits back that were made small."""
        for (owner, name), value in self.limits.items():
            setattr(owner, name, value)

    # -- helpers --------------------------------------------------------------------------------

    def _now(self) -> None:
        self.model.now_ms, self.model.unix_ms = self.world.now_ms, self.world.unix_ms
        self.model.dlq_exists = "q.dlq" in self.world.store.queues
        for name in self.model.settings:
            queue = self.world.store.queues.get(name)
            self.model.settings[name] = dict(queue.settings) if queue else default_settings()

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

    def _observe(self) -> None:
        """Apply to the model what the core handed out, and read what arrived."""
        see_dead_moved(self.world, self.model)
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
        reader = Client(self.world, outgoing.connection, "reader")
        self.world.clients, clients = {outgoing.connection: reader}, self.world.clients
        self.world._send(outgoing)
        self.world.clients = clients
        for got in reader.messages():
            message = self.model.messages.get(got.id)
            assert message is not None, f"{got.id} had ended"
            assert got.id not in self.acked, f"{got.id} was acked, and that was confirmed"
            assert (message.queue, message.state) == (got.queue, "READY")
            assert (got.attempt, got.marked) == (message.charged + 1, message.marked)
            assert (got.body, got.key) == (message.body, message.key)
            assert message is self.model.first_of_lane(message), "not the first of its lane"
            self.model.hand_out(
                message,
                got.token,
                outgoing.connection,
                header["lease_ms"],
                begun=header.get("begun", False),
            )

    def _arrived(self, client: Client, frame: dict[str, Any]) -> None:
        if frame["op"] == "deliver":
            self.got[client.session] += frame["messages"]
        elif frame["op"] == "welcome":
            self.welcome = frame
        elif "sequence" in frame:
            sent = self.sent[client.session][frame["sequence"]]
            assert frame["op"] == "confirm", frame
            assert sent.answer in (None, frame), "two answers to one frame"
            sent.answer = frame
            self._confirmed(sent, frame)

    def _confirmed(self, sent: Sent, frame: dict[str, Any]) -> None:
        if sent.kind in ("publish", "step"):
            result = frame["results"][-1]
            ids = [(result["origin"], result["first"] + i) for i in range(sent.arguments["count"])]
            if result["durability"] == "sync":
                self.confirmed.update(ids)
        if sent.kind == "publish":
            return
        lost = set(frame["lost_runs"])
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
    @rule(index=indices, count=st.integers(0, 4), back=indices)
    def resume(self, index: int, count: int, back: int) -> None:
        old = self.gone.pop(index % len(self.gone))
        begun = self._pick(old, back, count)
        seen: dict[Id, Delivered] = {message.id: message for message in begun}
        client = self.world.resume(old, seen.values())
        client.sent = old.sent
        self._now()
        self._add(client)
        expected = [message.run for message in seen.values() if not self._keeps(client, message)]
        self._observe()
        self.sync()
        assert self.welcome["lost_runs"] == expected
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
        records = len(self.world.open)
        if not sent.known:
            self._do(client, sent, sequence, lambda: client.send(sent.payload))
            return
        client.send(sent.payload)
        assert len(self.world.open) == records, "a frame was applied twice"
        self._observe()

    # -- frames ---------------------------------------------------------------------------------

    @rule(
        index=indices,
        delays=st.lists(st.sampled_from([0, 0, 0, 5, 300, 3_000, 70_000]), min_size=1, max_size=4),
        keys=st.lists(st.sampled_from(["", "", "a", "b"]), min_size=4, max_size=4),
        terms=TERMS,
        safe=st.booleans(),
    )
    def publish(
        self, index: int, delays: list[int], keys: list[str], terms: tuple[int, int], safe: bool
    ) -> None:
        columns = {"delays": delays, "keys": keys[: len(delays)]}
        self._send_publish(index, delays, keys, terms, columns)
        if safe:
            self.sync()

    @rule(
        index=indices,
        counts=st.lists(st.integers(1, 3), min_size=2, max_size=6),
        terms=TERMS,
        freeze=st.booleans(),
    )
    def pile_up(self, index: int, counts: list[int], terms: tuple[int, int], freeze: bool) -> None:
        """Plain messages come faster than they are taken; they may leave memory. Each second frame has terms."""
        for at, count in enumerate(counts):
            each = terms if at % 2 else (0, 0)
            self._send_publish(index, [0] * count, [""] * count, each, {})
        self.sync()
        if freeze:
            self.world.freeze()
            self._observe()

    def _send_publish(
        self,
        index: int,
        delays: list[int],
        keys: list[str],
        terms: tuple[int, int],
        columns: dict[str, Any],
    ) -> None:
        client = self._client(index)
        count = len(delays)
        bodies = [b"%d" % (self.bodies + i) for i in range(count)]
        self.bodies += count
        arguments = {"count": count, "bodies": bodies, "delays": delays, "keys": keys[:count]}
        arguments["terms"] = terms
        columns |= {"max_attempts": terms[0], "lease_ms": terms[1]}
        sent = Sent("publish", b"", arguments=arguments)
        send = lambda: client.publish("q", *bodies, **columns)  # noqa: E731
        self._apply(client, sent, client.sequence + 1, send)

    @rule(
        index=indices,
        back=indices,
        count=st.integers(1, 4),
        safe=st.booleans(),
        verb=st.sampled_from(SETTLES),
        delay_ms=st.sampled_from([None, 0, 500]),
        begin=st.booleans(),
    )
    def settle(
        self,
        index: int,
        back: int,
        count: int,
        safe: bool,
        verb: str,
        delay_ms: int | None,
        begin: bool,
    ) -> None:
        client = self._client(index)
        messages = self._pick(client, back, count)
        if not messages:
            return
        queue = messages[0].queue
        arguments: dict[str, Any] = {"begin": begin}
        fields = {}
        if verb == "nack" and delay_ms is not None:
            arguments["delay_ms"] = fields["delay_ms"] = delay_ms
        if verb == "extend":
            arguments["lease_ms"] = fields["lease_ms"] = delay_ms or 700
        parts = [settle_part(verb, queue, [m.run for m in messages], **fields)]
        if begin:
            parts.insert(0, settle_part("begin", queue, [m.run for m in messages]))
        sent = Sent(verb, b"", queue, messages, arguments)
        send = lambda: client.sequenced(  # noqa: E731
            [part for part, _ in parts], b"".join(columns for _, columns in parts)
        )
        self._apply(client, sent, client.sequence + 1, send)
        if safe:
            self.sync()

    @rule(
        index=indices,
        back=indices,
        count=st.integers(1, 4),
        delays=st.lists(st.sampled_from([0, 0, 300]), min_size=1, max_size=3),
        keys=st.lists(st.sampled_from(["", "a", "b"]), min_size=3, max_size=3),
        safe=st.booleans(),
    )
    def step(
        self, index: int, back: int, count: int, delays: list[int], keys: list[str], safe: bool
    ) -> None:
        """Ack some and publish some in one frame: both, or nothing where one is not held any more."""
        client = self._client(index)
        messages = list(
            {message.id: message for message in self._pick(client, back, count)}.values()
        )
        if not messages:
            return
        queue, keys = messages[0].queue, keys[: len(delays)]
        bodies = [b"%d" % (self.bodies + i) for i in range(len(delays))]
        self.bodies += len(delays)
        send = lambda: client.sequenced(*step_frame(messages, bodies, delays, keys))  # noqa: E731
        arguments = {"count": len(delays), "bodies": bodies, "delays": delays, "keys": keys}
        arguments |= {"terms": (0, 0), "begin": False}
        sent = Sent("step", b"", queue, messages, arguments)
        self._do(client, sent, client.sequence + 1, send)
        if safe:
            self.sync()

    def _do(self, client: Client, sent: Sent, sequence: int, send: Any) -> None:
        """Apply a frame, unless it is a step of which something is not held: that is refused."""
        if sent.kind != "step" or self.model.holds_all(client.session, sent.queue, sent.messages):
            self._apply(client, sent, sequence, send)
            return
        before = len(self.world.open)
        answer = send() or client.answer(sequence=sequence)
        assert (answer["code"], len(self.world.open)) == ("lease_lost", before)
        self.sent[client.session].pop(sequence, None)

    def _apply(self, client: Client, sent: Sent, sequence: int, send: Any) -> None:
        """Send a frame that the server does not know, and do the same to the model."""
        self._now()
        first = self._next_id()
        before = len(self.world.open)
        # The answer is taken out of the inbox by the harness; it is read here.
        answer = send()
        if answer is not None:
            client.inbox.append(answer)
        records = self.world.open[before:]
        sent.payload, sent.known, sent.answer = client.sent[sequence], True, None
        self.sent[client.session][sequence] = sent
        durable = bool(records)
        if sent.kind != "publish":
            self._settle(client, sent)
        if sent.kind in ("publish", "step"):
            assert first is not None or "q" in self.world.store.queues
            self._publish(sent, first or (self.world.queue("q").number, 0))
        if sent.kind == "publish":
            durable = self.model.settings["q"]["durability"] != "memory"
        if durable:
            self.model.frames.add((client.session, sequence))
        self._observe()

    def _next_id(self) -> Id | None:
        if "q" not in self.world.store.queues:
            return None
        queue = self.world.queue("q")
        return queue.number, queue.next_sequence

    def _publish(self, sent: Sent, first: Id) -> None:
        arguments = sent.arguments
        told = (arguments[name] for name in ("bodies", "keys", "delays", "terms"))
        self.model.publish(first, *told)
        if self.model.settings["q"]["durability"] == "sync":
            ids = [(first[0], first[1] + i) for i in range(arguments["count"])]
            self.entering.append((self.world.store.open_batch, ids))

    def _settle(self, client: Client, sent: Sent) -> None:
        sent.lost = []
        steps = ["begin"] if sent.arguments["begin"] else []
        for verb in [*steps, sent.kind]:
            for got in sent.messages:
                message = self.model.holds(client.session, sent.queue, got.token, got.id)
                if message is None:
                    sent.lost.append(got.run)
                else:
                    self._settle_one(message, verb, sent.arguments)

    def _settle_one(self, message: Modelled, verb: str, arguments: dict[str, Any]) -> None:
        if verb == "begin":
            self.model.begin(message)
        elif verb in ("ack", "step"):
            self.model.ack(message)
        elif verb == "nack":
            self.model.fail(message, arguments.get("delay_ms"))
        elif verb == "reject":
            self.model.reject(message)
        elif verb == "release":
            self.model.release(message)
        else:
            self.model.begin(message)
            self.model.begin(message, arguments.get("lease_ms", 0), renew=True)

    @rule(index=indices)
    def answered(self, index: int) -> None:
        """The client has its answers, and the server may forget them."""
        client = self._client(index)
        while (sent := self.sent[client.session].get(client.answered_below)) and sent.answer:
            client.answered_below += 1

    @rule(index=indices, back=indices, count=st.integers(1, 4))
    def begin(self, index: int, back: int, count: int) -> None:
        client = self._client(index)
        messages = self._pick(client, back, count)
        if not messages:
            return
        self._now()
        client.begin(*messages)
        for got in messages:
            message = self.model.holds(client.session, got.queue, got.token, got.id)
            if message is not None:
                self.model.begin(message)
        self._observe()

    @rule(
        index=indices,
        queue=st.sampled_from(["q", "q", "q", "q.dlq"]),
        prefetch=st.integers(0, 5),
        consumer=st.integers(1, 2),
    )
    def consume(self, index: int, queue: str, prefetch: int, consumer: int) -> None:
        client = self._client(index)
        if queue == "q.dlq" and not self.model.dlq_exists:
            queue = "q"
        self._now()
        known = self.world.store.connections[client.connection].consumers.get(consumer)
        if known is not None:
            queue = self.world.store.by_number[known.queue_number].name
        client.consume(queue, prefetch, consumer)
        self.consumers[client.connection, consumer] = prefetch
        self._observe()

    # -- the disk -----------------------------------------------------------------

    @rule()
    def close(self) -> None:
        """A batch is taken away to be written."""
        if self.world.open:
            self.durables.append(self.model.durable())
            self.world.close_batch()

    @rule()
    def sync(self) -> None:
        """Everything is safe."""
        self.close()
        while self.durables:
            self.sync_one()
            self.close()

    @precondition(lambda self: bool(self.durables))
    @rule()
    def sync_one(self) -> None:
        """The oldest batch that was taken away is safe."""
        self._now()
        number = self.world.closed[0].number
        self.world.sync_one()
        self.safe = self.durables.pop(0)
        while self.entering and self.entering[0][0] <= number:
            self.model.entered(self.entering.pop(0)[1])
        self._observe()
