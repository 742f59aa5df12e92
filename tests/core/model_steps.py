"""The steps of clients and of the disk, each done to the core and to the model (test_model.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core_client import Client, settle_part
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from model_connections import NO_TERMS, Connections, indices
from model_frames import Sent, step_frame
from model_kept import FOR_EVER_MS
from model_plans import plan_of, publish
from modelled import Id, Modelled

from minibroker.contract.settings import UNIQUE_MODES

TICK_MS = 8
SETTLES = ("ack", "nack", "reject", "release", "extend")
# What becomes of a message that a handler waited for: nothing for now, it is settled, or its connection ends.
FATES = ("", "release", "ack", "again", "lost", "named", "more")
WAITS = st.sampled_from([None, None, 1, 2])  # the consumer of which a frame says that it waits
TERMS = st.tuples(
    st.sampled_from([0, 0, 0, 1, 4]),
    st.sampled_from([0, 0, 0, 900, 5_000]),
    st.sampled_from([0, 0, 0, 3, 9]),
    st.sampled_from([0, 0, 0, 300, 3_000]),
)


def said(waits: int | None) -> dict[str, Any]:
    """Return what the header of a frame says of a consumer whose handler waits."""
    return {} if waits is None else {"waits": waits}


class Clients(Connections):
    """What clients send, and what the disk does."""

    # -- frames ---------------------------------------------------------------------------------

    @rule(
        index=indices,
        delays=st.lists(st.sampled_from([0, 0, 0, 5, 300, 3_000, 70_000]), min_size=1, max_size=4),
        keys=st.lists(st.sampled_from(["", "", "a", "b"]), min_size=4, max_size=4),
        terms=TERMS,
        safe=st.booleans(),
        uniques=st.lists(st.sampled_from(["", "", "", "u", "v"]), min_size=4, max_size=4),
        mode=st.sampled_from(UNIQUE_MODES),
        dedupes=st.lists(st.sampled_from(["", "", "", "d", "e"]), min_size=4, max_size=4),
        window_ms=st.sampled_from([0, 500, 10_000]),
    )
    def publish(
        self,
        index: int,
        delays: list[int],
        keys: list[str],
        terms: tuple[int, int, int, int],
        safe: bool,
        uniques: Sequence[str] = ("",) * 4,
        mode: str = "drop",
        dedupes: Sequence[str] = ("",) * 4,
        window_ms: int = 0,
    ) -> None:
        columns: dict[str, Any] = {"delays": delays, "keys": keys[: len(delays)]}
        if any(uniques[: len(delays)]):
            columns |= {"uniques": uniques[: len(delays)], "unique_mode": mode}
        if any(dedupes[: len(delays)]):
            columns |= {"dedupes": dedupes[: len(delays)], "dedupe_window_ms": window_ms}
        self._send_publish(index, delays, keys, terms, columns)
        if safe:
            self.sync()

    @rule(
        index=indices,
        counts=st.lists(st.integers(1, 3), min_size=2, max_size=6),
        terms=TERMS,
        freeze=st.booleans(),
    )
    def pile_up(
        self, index: int, counts: list[int], terms: tuple[int, int, int, int], freeze: bool
    ) -> None:
        """Plain messages come faster than they are taken; they may leave memory. Each second frame has terms."""
        for at, count in enumerate(counts):
            each = terms if at % 2 else NO_TERMS
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
        terms: tuple[int, int, int, int],
        columns: dict[str, Any],
    ) -> None:
        client = self._client(index)
        count = len(delays)
        bodies = [b"%d" % (self.bodies + i) for i in range(count)]
        self.bodies += count
        arguments = {"count": count, "bodies": bodies, "delays": delays, "keys": keys[:count]}
        arguments |= {"terms": terms, "uniques": columns.get("uniques", [""] * count)}
        arguments["mode"] = columns.get("unique_mode", "drop")
        arguments["dedupes"] = columns.get("dedupes", [""] * count)
        arguments["window_ms"] = columns.get("dedupe_window_ms", 0)
        columns |= {
            "max_attempts": terms[0],
            "lease_ms": terms[1],
            "priority": terms[2],
            "ttl_ms": terms[3],
        }
        sent = Sent("publish", b"", arguments=arguments)
        send = lambda: client.publish("q", *bodies, **columns)  # noqa: E731
        self._do(client, sent, client.sequence + 1, send)

    @rule(
        index=indices,
        back=indices,
        count=st.integers(1, 4),
        safe=st.booleans(),
        verb=st.sampled_from(SETTLES),
        delay_ms=st.sampled_from([None, 0, 500]),
        begin=st.booleans(),
        recalled=st.booleans(),
        waits=WAITS,
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
        recalled: bool = False,
        waits: int | None = None,
    ) -> None:
        client = self._client(index)
        messages = self._pick(client, back, count)
        if not messages:
            return
        queue = messages[0].queue
        arguments: dict[str, Any] = {"begin": begin, "waits": waits}
        fields = {}
        if verb == "nack" and delay_ms is not None:
            arguments["delay_ms"] = fields["delay_ms"] = delay_ms
        if verb == "extend":
            arguments["lease_ms"] = fields["lease_ms"] = delay_ms or 700
        if verb == "release" and recalled:
            arguments["recalled"], fields["recalled"] = True, 1
        parts = [settle_part(verb, queue, [m.run for m in messages], **fields)]
        if begin:
            parts.insert(0, settle_part("begin", queue, [m.run for m in messages]))
        sent = Sent(verb, b"", queue, messages, arguments)
        send = lambda: client.sequenced(  # noqa: E731
            [part for part, _ in parts], b"".join(columns for _, columns in parts), **said(waits)
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
        uniques=st.lists(st.sampled_from(["", "", "u", "v"]), min_size=3, max_size=3),
        mode=st.sampled_from(UNIQUE_MODES),
        dedupes=st.lists(st.sampled_from(["", "", "d", "e"]), min_size=3, max_size=3),
        waits=WAITS,
    )
    def step(
        self,
        index: int,
        back: int,
        count: int,
        delays: list[int],
        keys: list[str],
        safe: bool,
        uniques: Sequence[str] = ("",) * 3,
        mode: str = "drop",
        dedupes: Sequence[str] = ("",) * 3,
        waits: int | None = None,
    ) -> None:
        """Ack some and publish some in one frame: both, or nothing where one is not held any more."""
        client = self._client(index)
        messages = list(
            {message.id: message for message in self._pick(client, back, count)}.values()
        )
        if not messages:
            return
        queue, most = messages[0].queue, len(delays)
        keys, uniques, dedupes = keys[:most], uniques[:most], dedupes[:most]
        bodies = [b"%d" % (self.bodies + i) for i in range(most)]
        self.bodies += most
        named = {"unique_key": uniques, "dedupe_id": dedupes}
        names = {name: texts for name, texts in named.items() if any(texts)}
        send = lambda: client.sequenced(  # noqa: E731
            *step_frame(messages, bodies, delays, keys, names, unique_mode=mode), **said(waits)
        )
        arguments = {"count": most, "bodies": bodies, "delays": delays, "keys": keys}
        arguments |= {"terms": NO_TERMS, "begin": False, "mode": mode}
        arguments |= {"uniques": uniques, "dedupes": dedupes, "waits": waits}
        sent = Sent("step", b"", queue, messages, arguments)
        self._do(client, sent, client.sequence + 1, send)
        if safe:
            self.sync()

    def _do(self, client: Client, sent: Sent, sequence: int, send: Any) -> None:
        """Apply a frame, unless it is refused: something of a step is not held, or a queue is full."""
        self._now()
        code = ""
        if sent.kind == "step":
            held = self.model.holds_all(client.session, sent.queue, sent.messages)
            code = "" if held else "lease_lost"
        if sent.kind in ("publish", "step"):
            # Of a step that acks messages of the queue itself nobody knows yet what is there already.
            most = sent.arguments["count"] if sent.kind == "step" and sent.queue == "q" else 0
            code = code or plan_of(self.model, sent.arguments, most).code
        # What gives way moves when it was read back; until then its publish is refused.
        moves = self.model.settings["q"]["overflow"] == "dead-letter"
        is_read = moves and any(lanes.default.cold for lanes in self.world.lanes("q"))
        if not code and not is_read:
            self._apply(client, sent, sequence, send)
            return
        first = self._next_id()
        answer = send()
        if answer is None:
            answer = next((it for it in client.inbox if it.get("sequence") == sequence), None)
        if not code and (answer is None or answer["op"] != "error"):
            if answer is not None and answer not in client.inbox:
                client.inbox.append(answer)
            self._applied(client, sent, sequence, first)
            return
        assert answer["code"] == (code or "busy")
        if answer in client.inbox:
            client.inbox.remove(answer)
        assert sequence not in self.world.store.sessions[client.session].window
        self.sent[client.session].pop(sequence, None)
        self._observe()  # it broke its silence, and may be handed something

    def _apply(self, client: Client, sent: Sent, sequence: int, send: Any) -> None:
        """Send a frame that the server does not know, and do the same to the model."""
        self._now()
        first = self._next_id()
        # The answer is taken out of the inbox by the harness; it is read here.
        answer = send()
        if answer is not None:
            client.inbox.append(answer)
        self._applied(client, sent, sequence, first)

    def _applied(self, client: Client, sent: Sent, sequence: int, first: Id | None) -> None:
        sent.payload, sent.known, sent.answer = client.sent[sequence], True, None
        self.sent[client.session][sequence] = sent
        outcome = self.world.store.sessions[client.session].window[sequence]
        is_logged = bool(outcome.recorded)
        if sent.kind != "publish":
            self._settle(client, sent)
        if sent.kind in ("publish", "step"):
            assert first is not None or "q" in self.world.store.queues
            self._publish(sent, first or (self.world.queue("q").number, 0))
        if sent.kind == "publish":
            is_memory = self.model.settings["q"]["durability"] == "memory"
            is_told = sent.stored or sent.is_noted or sent.duplicates
            assert is_logged == (bool(is_told) and not is_memory)
        if is_logged:
            self.model.frames.add((client.session, sequence))
        self._said(client, sent.arguments.get("waits"))
        self._observe()

    def _next_id(self) -> Id | None:
        if "q" not in self.world.store.queues:
            return None
        queue = self.world.queue("q")
        return queue.number, queue.next_sequence

    def _publish(self, sent: Sent, first: Id) -> None:
        plan = plan_of(self.model, sent.arguments)  # after what a step acked
        sent.duplicates = plan.known_runs(first)
        sent.is_noted = bool(plan.dedupes)
        sent.stored = publish(self.model, first, sent.arguments, plan)
        if self.model.settings["q"]["durability"] == "sync":
            self.entering.append((self.world.store.open_batch, sent.stored))

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
            self.model.release(message, recalled=arguments.get("recalled", False))
        else:
            self.model.begin(message)
            self.model.begin(message, arguments.get("lease_ms", 0), renew=True)

    @rule(index=indices)
    def answered(self, index: int) -> None:
        """The client has its answers, and the server may forget them."""
        client = self._client(index)
        while (sent := self.sent[client.session].get(client.answered_below)) and sent.answer:
            client.answered_below += 1

    @rule(index=indices, back=indices, count=st.integers(1, 4), together=st.booleans())
    def begin(self, index: int, back: int, count: int, together: bool) -> None:
        client = self._client(index)
        messages = self._pick(client, back, count)
        if not messages:
            return
        self._now()
        client.begin(*messages, together=together)
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

    @rule(
        index=indices,
        consumer=st.integers(1, 2),
        room=st.sampled_from([0, 1, 1, 2]),
        by=st.sampled_from(["begin", "ack", "step"]),
        fate=st.sampled_from(FATES),
    )
    def wait(self, index: int, consumer: int, room: int, by: str, fate: str) -> None:
        """A handler waits, says a frame that says nothing else; what comes next is mostly begun for it.

        That frame may be refused, or come twice. The handler may go without its message, or its connection is
        lost, with the message or after it.
        """
        client = self._client(index)
        there = self.world.store.connections[client.connection].consumers
        if consumer not in there:
            self.consume(index, "q", 0, consumer)
        if room:  # what is ready is not begun: the consumer has that first
            ready = sum(message.state == "READY" for message in self.model.of("q"))
            self.consume(index, "q", there[consumer].outstanding + ready, consumer)
        self._say(client, consumer, by)
        said = client.sequence  # others follow, some of which may be refused
        self._bring(index, consumer, there[consumer].outstanding + room)
        if room > 1:  # two may have come together
            self._bring(index, consumer, there[consumer].outstanding + 1)
        if not fate:
            return
        self.sync()  # it has arrived
        if fate == "again" and by == "ack":
            self._resend(client, said)
            self._bring(index, consumer, there[consumer].outstanding + 1)
        elif fate == "release":
            for is_unseen in (True, False):  # it comes again
                self.settle(index, 0, 1, True, fate, None, False, recalled=is_unseen)
        elif fate == "ack":
            self.settle(index, 0, 1, False, fate, None, False)
        else:
            self.disconnect(index)
            self.resume(len(self.gone) - 1, int(fate == "named"), 0, has_more=fate == "more")

    def _say(self, client: Client, consumer: int, by: str) -> None:
        """Say in a frame of this kind that a handler waits; a step is about what nobody holds."""
        self._now()
        part, columns = settle_part("begin" if by == "begin" else "ack", "q", [])
        if by == "begin":
            client.send(client.frame([part], columns, waits=consumer))
            self._said(client, consumer)
        elif by == "ack":
            sent = Sent("ack", b"", "q", [], {"begin": False, "waits": consumer})
            send = lambda: client.sequenced([part], columns, waits=consumer)  # noqa: E731
            self._apply(client, sent, client.sequence + 1, send)
        else:
            part, columns = settle_part("ack", "q", [(1, 1, 2**40, 1)])
            answer = client.sequenced([part], columns, step=1, waits=consumer)
            assert answer["code"] == "lease_lost"
        self._observe()

    def _bring(self, index: int, consumer: int, prefetch: int) -> None:
        """Let a consumer have so many, and see to it that there is something for it."""
        client = self._client(index)
        known = self.world.store.connections[client.connection].consumers[consumer]
        self.consume(index, "q", prefetch, consumer)
        room = prefetch - known.outstanding
        if room > 0 and not any(message.state == "READY" for message in self.model.of("q")):
            self.publish(index, [0] * room, [""] * room, NO_TERMS, safe=True)

    @rule(index=indices, for_ms=st.sampled_from([0, 50, 2_000]), goes_on=st.booleans())
    def pause(self, index: int, for_ms: int, goes_on: bool) -> None:
        """Nothing of a queue is handed out, for a time or until it goes on."""
        client = self._client(index)
        self._now()
        part = {"op": "unpause"} if goes_on else {"op": "pause", "for_ms": for_ms}
        client.request({"queue": "q", **part})
        until_unix_ms = self.model.unix_ms + for_ms if for_ms else FOR_EVER_MS
        self.model.kept.paused_until_unix_ms = 0 if goes_on else until_unix_ms
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
