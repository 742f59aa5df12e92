"""The core against a model of dicts, in any order of commands, syncs, crashes and passing time.

After every step the state of each message must be what the model says. On the way: everything handed out was
READY, first in its lane, under a token above all earlier ones, with the right attempt and mark; every answer names
exactly the losses that the model expects; what was confirmed is never lost, what was acked never comes again.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from model_circuits import WINDOW_MS
from model_connections import KEY_CONCURRENCY, indices, rarely
from model_steps import TICK_MS, Clients
from modelled import Modelled
from starts import known
from watched import see_dead_moved

from minibroker.contract import limits
from minibroker.contract.settings import OVERFLOWS
from minibrokerd.core.model.inputs import Forward
from minibrokerd.core.model.messages import Message
from minibrokerd.core.model.records import CopyMeta, CopyRunMeta, Meta
from minibrokerd.core.model.walks import UNSYNCED_BATCHES
from model import ENDED
from support.hypothesis_budget import model_settings


class Broker(Clients):
    """Steps of administrators, of time and of fate; and what always holds."""

    # -- administration -------------------------------------------------------------------------

    @rule(
        index=indices,
        attempts=st.integers(1, 3),
        lease_ms=st.sampled_from([200, 2_000, 90_000]),
        retry_delay_ms=st.sampled_from([0, 100, 5_000]),
        durability=st.sampled_from(["sync", "sync", "lazy", "memory"]),
        key_concurrency=KEY_CONCURRENCY,
    )
    def change_settings(
        self,
        index: int,
        attempts: int,
        lease_ms: int,
        retry_delay_ms: int,
        durability: str,
        key_concurrency: int,
    ) -> None:
        client = self._client(index)
        client.set(
            "q",
            durability=durability,
            max_attempts=attempts,
            lease_ms=lease_ms,
            retry_delay_ms=retry_delay_ms,
            key_concurrency=key_concurrency,
        )
        self._now()
        self._observe()

    @rule(index=indices, on_expired=st.sampled_from(["drop", "dead-letter"]))
    def change_what_expires(self, index: int, on_expired: str) -> None:
        self._client(index).set("q", on_expired=on_expired)
        self._now()
        self._observe()

    @rule(
        index=indices,
        queue=st.sampled_from(["q", "q", "q.dlq"]),
        max_wait_ms=st.sampled_from([0, 1, 300, 3_000]),
    )
    def bound_the_wait(self, index: int, queue: str, max_wait_ms: int) -> None:
        """From then on a priority whose oldest message waited for so long goes first."""
        client = self._client(index)
        if queue in self.world.store.queues:
            client.set(queue, max_wait_ms=max_wait_ms)
            self._now()
            self._observe()

    @rule(index=indices, most=st.sampled_from([0, 2]))
    def limit_dlq(self, index: int, most: int) -> None:
        client = self._client(index)
        if "q.dlq" in self.world.store.queues:
            client.set("q.dlq", max_messages=most, lease_ms=1_000)
            self._now()
            self._observe()

    @rule(
        index=indices,
        percent=st.sampled_from([0, 50, 100]),
        attempts=st.integers(1, 3),
        open_ms=st.sampled_from([100, 5_000]),
    )
    def break_circuits(self, index: int, percent: int, attempts: int, open_ms: int) -> None:
        """From then on a key whose attempts fail gives nothing for a while, then one message at a time."""
        self._client(index).set(
            "q",
            circuit_by="key",
            circuit_failures_percent=percent,
            circuit_attempts=attempts,
            circuit_window_ms=WINDOW_MS,
            circuit_open_ms=open_ms,
        )
        self._now()
        self._observe()

    @rule(index=indices, key=st.sampled_from(["a", "b"]))
    def resume_key(self, index: int, key: str) -> None:
        """Its circuit is closed."""
        if "q" in self.world.store.queues:
            part = {"op": "key_set", "queue": "q", "key": key, "pause_ms": 0}
            self._client(index).request(part)
            self.model.circuits.open.pop(key, None)
            self._observe()

    @rule(index=indices, most=st.sampled_from([0, 0, 3, 6]), overflow=st.sampled_from(OVERFLOWS))
    def limit_queue(self, index: int, most: int, overflow: str) -> None:
        self._client(index).set("q", max_messages=most, overflow=overflow)
        self._now()
        self._observe()

    @rule(index=indices, queue=st.sampled_from(["q", "q.dlq"]), really=rarely)
    def purge(self, index: int, queue: str, really: bool) -> None:
        if not really:
            self.time_passes(2_200)
            return
        client = self._client(index)
        if queue in self.world.store.queues:
            self._now()
            client.purge(queue)
            self.world.run_jobs()
            self.model.purge(queue)
            self._observe()

    def _disk_follows(self) -> None:
        """What many messages are asked to do waits where the disk is far behind; here it is done at once."""
        if self.world.store.open_batch - self.world.store.synced > UNSYNCED_BATCHES:
            self.sync()

    @rule(index=indices, count=st.integers(0, 3), back=indices, named=st.booleans())
    def redrive(self, index: int, count: int, back: int, named: bool) -> None:
        self._disk_follows()
        client = self._client(index)
        self._now()
        if not self.model.dlq_exists or "q.dlq" in self.model.awaits:
            return
        waiting = sorted(
            (m for m in self.model.of("q.dlq") if m.state in ("READY", "DELAYED")),
            key=lambda m: (m.state == "DELAYED", -m.priority, m.ready_at_ms, m.id),
        )
        # Lanes take turns, and what is delayed goes in any order: then the oldest of all is not first.
        in_order = all(m.state == "READY" and not m.key for m in waiting)
        limit = self.model.setting("q", "max_messages")
        room = max(limit - len(self.model.of("q")), 0) if limit else len(waiting)
        if named:
            picked = [m for m in waiting if m.id[1] % 3 == back % 3]
            client.redrive("q.dlq", ids=[m.id for m in picked] or [(1, 2**40)])
            picked = picked[:room]
        elif in_order:
            picked = waiting[: min(count or len(waiting), room)]
            client.redrive("q.dlq", count=count)
        else:
            client.redrive("q.dlq")
            there = self.world.states("q")
            picked = [m for m in waiting if m.id in there]
            assert len(picked) == min(len(waiting), room)
        for message in picked:
            self.model.redrive(message)
        self._observe()

    @rule(
        index=indices,
        back=indices,
        queue=st.sampled_from(["q", "q", "q.dlq"]),
        by_key=st.booleans(),
    )
    def cancel_messages(self, index: int, back: int, queue: str, by_key: bool) -> None:
        client = self._client(index)
        self._now()
        there = [m for m in self.model.of(queue) if m.state != "ENTERING"]
        if not there:
            return
        picked = there[back % len(there)]
        if by_key and picked.key:
            client.cancel_messages(queue, key=picked.key)
            gone = [m for m in there if m.key == picked.key]
        else:
            client.cancel_messages(queue, picked.id)
            gone = [picked]
        for message in gone:
            self.model.cancel(message)
        self._observe()

    @rule(
        index=indices,
        back=indices,
        queue=st.sampled_from(["q", "q", "q.dlq"]),
        delay_ms=st.sampled_from([0, 400, 5_000]),
    )
    def retime(self, index: int, back: int, queue: str, delay_ms: int) -> None:
        if any(lanes.default.cold for lanes in self.world.lanes(queue)):
            self.sync()  # what left memory is read back where its copy is safe
        self._disk_follows()
        client = self._client(index)
        self._now()
        waiting = [m for m in self.model.of(queue) if m.state in ("READY", "DELAYED")]
        if not waiting or queue in self.model.awaits:
            return
        picked = waiting[back % len(waiting)]
        client.retime(queue, picked.id, delay_ms)
        if not picked.dead:
            self.model.retime(picked, delay_ms)
        self._observe()

    @rule(index=indices, back=indices)
    def a_frame_comes_twice(self, index: int, back: int) -> None:
        """The second answer waits for the disk as the first one does."""
        client = self._client(index)
        sequences = sorted(self.sent[client.session])
        if not sequences:
            return
        sequence = sequences[-1 - back % len(sequences)]
        name = client.connection, sequence
        waits = name in {(each.connection, each.header.get("sequence")) for each in self.world.held}
        self._resend(client, sequence)
        answered = self.sent[client.session][sequence].answer is not None
        assert not (waits and answered), "confirmed before it is safe"

    # -- time and fate --------------------------------------------------------------------------

    @rule(
        duration_ms=st.one_of(
            st.integers(0, 50), st.integers(0, 3_000), st.sampled_from([1_000, 70_000, 100_000])
        )
    )
    def time_passes(self, duration_ms: int) -> None:
        end_ms = self.world.now_ms + duration_ms
        while self.world.now_ms < end_ms:
            next_ms = self.world.core.next_deadline_ms()
            until_ms = end_ms if next_ms is None else min(max(next_ms, self.world.now_ms), end_ms)
            self.world.advance(until_ms - self.world.now_ms)
            self._time_is(self.world.now_ms)
            if (
                next_ms is not None
                and next_ms <= self.world.now_ms == until_ms
                and until_ms == end_ms
            ):
                return

    def _time_is(self, now_ms: int) -> None:
        self._now()
        see_dead_moved(self.world, self.model)
        actual = {
            (id, item.token, state.name)
            for queue in self.world.store.queues.values()
            for state, item in queue.group.items()
            if state.name in ("DELAYED", "BEGUN")
            for id in [(item.block.origin, s) for s in range(item.first, item.stop)]
        }
        waiting = [m for m in self.model.messages.values() if m.state in ("DELAYED", "BEGUN")]
        due = []
        for message in waiting:
            deadline_ms = message.ready_at_ms if message.state == "DELAYED" else message.deadline_ms
            if message.dead:
                continue
            if deadline_ms > now_ms:
                continue
            # Within its tick it may have fired or not.
            if (
                deadline_ms + TICK_MS <= now_ms
                or (message.id, message.token, message.state) not in actual
            ):
                due.append((deadline_ms, message))
        # Those that end in one tick end in any order: a DLQ with room for some took those it has.
        dead = self.world.states("q.dlq")
        spared = {message.id for _, message in due if self._is_spared(message)}
        order = lambda entry: (entry[1].id not in dead, entry[1].id in spared, entry[1].id)  # noqa: E731
        for _, message in sorted(due, key=order):
            if message.state == "DELAYED":
                self.model.delay_over(message)
            else:
                self.model.lease_over(message)
        self._observe()

    def _is_spared(self, message: Modelled) -> bool:
        """Whether a lease that ended was charged to nobody: the circuit opened in the same tick."""
        group = self.world.queue(message.queue).group
        item = group.lanes.find(*message.id) or group.later.find(*message.id)
        return isinstance(item, Message) and item.releases > message.releases

    @rule(index=indices, consumer=st.integers(1, 2))
    def cancel(self, index: int, consumer: int) -> None:
        client = self._client(index)
        connection = self.world.store.connections[client.connection]
        known = connection.consumers.get(consumer)
        held = set()
        if known is not None:
            for token in connection.tokens:
                if self.world.store.deliveries[token].consumer is known:
                    held.add(token)
        self._now()
        client.cancel(consumer)
        self.consumers.pop((client.connection, consumer), None)
        if self.waiting.get(client.connection) == consumer:
            del self.waiting[client.connection]
        for message in self.model.messages.values():
            if message.state == "HELD" and message.token in held:
                message.state = "READY"
        self._observe()

    @rule(
        index=indices,
        queue=st.sampled_from(["q", "q", "q.dlq"]),
        count=st.integers(1, 5),
        wait_ms=st.sampled_from([0, 400]),
    )
    def receive(self, index: int, queue: str, count: int, wait_ms: int) -> None:
        client = self._client(index)
        if queue == "q.dlq" and not self.model.dlq_exists:
            queue = "q"
        self._now()
        answer = client.receive(queue, count, wait_ms)
        if answer is not None:
            client.inbox.append(answer)
        self._observe()

    @rule(jump_ms=st.sampled_from([-(10**6), -50, 3_000, 10**7]))
    def the_wall_clock_steps(self, jump_ms: int) -> None:
        self.world.unix_ms += jump_ms
        # A restart after this takes sessions for silent, and cannot judge what is sent again.
        self.forgotten = self.forgotten or jump_ms > limits.FRAME_OUTCOME_MS

    @rule(
        clean=st.booleans(),
        lose=st.booleans(),
        down_ms=st.sampled_from([0, 100, 3_000, 80_000, -5_000]),
        digests=st.booleans(),
        really=rarely,
    )
    def restart(self, clean: bool, lose: bool, down_ms: int, digests: bool, really: bool) -> None:
        if not really:
            self.time_passes(1_100)
            return
        if clean:
            for client in list(self.clients):
                self.world.disconnect(client)
                self._end(client)
                self._observe()
            self.sync()
        elif not lose and self.durables:
            self.safe = self.durables[-1]
        self.world.made.clear()
        for client in list(self.clients):
            self._end(client)
        self.world.digests = digests
        self.world.restart(clean=clean, lose_unsynced=lose, wall_ms=down_ms, waits=True)
        ended = self.confirmed - self.safe.messages.keys()
        self.durables.clear()
        self.entering.clear()
        before = self.model.messages
        self._now()
        self.model.restart(self.safe, self.world.epoch, self.world.now_ms, self.world.unix_ms)
        self.safe = self.model.durable()
        lost = {id for id in ended if id in before and before[id].durability == "sync"}
        assert not lost, "confirmed messages that nobody ended are lost"
        assert not self.acked & self.model.messages.keys(), "a confirmed ack was forgotten"
        for session, frames in self.sent.items():
            for sequence, sent in frames.items():
                sent.known = (session, sequence) in self.model.frames

    @rule(back=indices, most_bytes=st.sampled_from([1, 300, 2**30]), free=st.booleans())
    def forward(self, back: int, most_bytes: int, free: bool) -> None:
        """Some of what stands in the oldest batches is written again; or all of it, and they are freed."""
        log = self.world.log
        if not log:
            return
        upto = self.world.segment_end(log[back % len(log)].number)
        self._forward(upto, most_bytes)
        while free and self.world.core.clear_below <= upto:
            self._forward(upto, most_bytes)
        if free:
            self.sync()
            self.world.forget(upto)
            self._outcomes_are_there()
        self._observe()

    def _outcomes_are_there(self) -> None:
        """A start on what is left of the log knows every frame that a client may send again."""
        _, outcomes, _ = known(self.world, digests=False)
        for session in self.world.store.sessions.values():
            recorded = {frame for frame, outcome in session.window.items() if outcome.recorded}
            there = outcomes.get(session.id, {})
            assert self.forgotten or recorded <= there.keys(), "an outcome was freed"

    def _forward(self, upto: int, most_bytes: int) -> None:
        self._now()
        self.world.copies.clear()
        self.world.copied.clear()
        self.world.apply(Forward(upto, most_bytes, rest_bytes=most_bytes // 2))
        done = 0
        for upto_copy in self.world.copied:  # a batch that ends has those so far, and no later ones
            self._copied(self.world.copies[done:upto_copy])
            self.durables.append(self.model.durable())
            done = upto_copy
        self._copied(self.world.copies[done:])

    def _copied(self, copies: Iterable[Meta]) -> None:
        for copy in copies:
            if isinstance(copy, CopyMeta):
                self.model.copied(copy)
            elif isinstance(copy, CopyRunMeta):
                self.model.run_copied(copy)

    @rule()
    def what_waits_leaves_memory(self) -> None:
        self._now()
        self.world.freeze()
        self._observe()

    @rule()
    def digests_say_what_the_records_say(self) -> None:
        assert known(self.world, digests=True) == known(self.world, digests=False)

    # -- what always holds ----------------------------------------------------------------------

    @invariant()
    def the_core_agrees_with_the_model(self) -> None:
        self.world.check()
        for queue in ("q", "q.dlq"):
            expected = {message.id: message.state for message in self.model.of(queue)}
            actual = self.world.states(queue)
            wrong = {id for id, _ in actual.items() ^ expected.items()}
            assert not wrong, [self.model.messages.get(id, (id, actual.get(id))) for id in wrong]

    @invariant()
    def what_waits_is_found_by_its_id(self) -> None:
        """In memory or not: else nobody can look at it, move it, or end it."""
        for name in ("q", "q.dlq"):
            for id, state in self.world.states(name).items():
                group = self.world.queue(name).group
                assert state != "READY" or group.lanes.find(*id) is not None, id
                assert state != "DELAYED" or group.later.find(*id) is not None, id

    @invariant()
    def nothing_waits_that_somebody_could_have(self) -> None:
        store = self.world.store
        for queue in store.queues.values():
            if queue.group.lanes.default.is_waiting:
                continue  # for a sync of what was written again, or for a read
            if queue.group.paused:  # looked at every ten seconds, and when its time is over
                continue
            if queue.group.lanes.turns and store.hands_out(queue.group):
                idle = [c for c in queue.group.consumers or () if c.credit() > 0]
                assert not idle, "a consumer with credit waits beside ready messages"

    @invariant()
    def what_is_ready_stands_in_turn_unless_its_key_is_closed(self) -> None:
        for queue in self.world.store.queues.values():
            ready = [m for m in self.model.of(queue.name) if self.model.may_go(m)]
            in_turn = [lane.key for lanes in queue.group.lanes.levels for lane in lanes._turn]
            assert sorted(in_turn) == sorted(key for key, _ in {(m.key, m.priority) for m in ready})

    @invariant()
    def circuits_are_open_as_long_as_the_model_says(self) -> None:
        queue = self.world.store.queues.get("q")
        keys = queue.group.keys if queue is not None else None
        circuits = keys.circuits if keys is not None else None
        found = {} if circuits is None else {k: c.until_ms for k, c in circuits.open.items()}
        assert found == {k: c.until_ms for k, c in self.model.circuits.open.items()}
        assert self.world.store.sums.key_circuits == len(found)

    @invariant()
    def no_consumer_has_more_than_its_prefetch_and_all_are_in_line(self) -> None:
        store = self.world.store
        looks = [queue.group.recall for queue in store.queues.values()]
        # Who gave something back has his turn behind the others, when it is looked again.
        apart = [consumer for recall in looks if recall for consumer in recall.apart]
        for connection in store.connections.values():
            for consumer in connection.consumers.values():
                assert consumer.outstanding >= 0
                is_out = consumer.credit() <= 0 or connection.silent or consumer in apart
                assert consumer.waiting or is_out

    @invariant()
    def counters_conserve_messages(self) -> None:
        counted = self.model.counters
        live = len(self.model.messages)
        assert counted["published"] == live + sum(counted[end] for end in ENDED)


TestBroker = pytest.mark.timeout(0)(Broker.TestCase)  # a larger budget takes its time
TestBroker.settings = model_settings()
