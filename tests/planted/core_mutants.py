"""Bugs of the core: deliveries, time, copies, digests, and messages that left memory."""

from __future__ import annotations

from typing import Final

from mutant import Mutant

DELIVERY_MUTANTS: Final = (
    Mutant(
        "a duplicate's confirm before its batch is synced",
        "core/core.py",
        "        confirm(store, frame, outcome.results, outcome.lost, outcome.batch)\n",
        "        confirm(store, frame, outcome.results, outcome.lost, 0)\n",
        ("model",),
        "I1: a frame that is sent twice is confirmed while it can still be lost",
    ),
    Mutant(
        "a confirm speaks of frames of the next batch",
        "core/verbs/parts.py",
        "        and earlier.rests_on == rests_on\n",
        "",
        ("core/test_core_confirming.py",),
        "I1: an ack is confirmed while it can still be lost, or never",
    ),
    Mutant(
        "ack matched by message only",
        "core/verbs/settling.py",
        '        """Take the messages of a run out of their delivery; note those that are lost."""\n'
        "        token, origin, first, count = run\n"
        "        delivery = self.delivery_of(token)\n",
        '        """Take the messages of a run out of their delivery; note those that are lost."""\n'
        "        token, origin, first, count = run\n"
        "        delivery = self.delivery_of(max(self.group.deliveries, default=token))\n",
        ("model",),
        "I6, L2: a stale ack ends somebody else's delivery",
    ),
    Mutant(
        "attempt counted at nack",
        "core/verbs/attempts.py",
        '        if cause == "expired":\n            expired += 1\n        elif cause != "worker_lost":\n'
        "            by_failure += 1\n        else:\n            worker_lost += 1\n",
        "        by_failure += int(CAUSES[cause] == 0)\n",
        ("model",),
        "I4, L9: a message that kills its workers does so for ever",
    ),
    Mutant(
        "dead letter as two records",
        "core/verbs/dooming.py",
        "    if message.block.durability != MEMORY:\n        store.emit(\n            MoveMeta(\n",
        "    if message.block.durability != MEMORY and target.is_dlq:\n"
        "        from minibrokerd.core.model import budgets, records\n"
        "        from minibrokerd.core.durable import forwarding\n\n"
        "        def enter() -> bool:\n"
        "            forwarding._copy(store, target, message, budgets.Budget(1))\n"
        "            return True\n\n"
        "        store.jobs.append(enter)\n"
        "        at = message.sequence, 1, 0, 0, store.unix_ms\n"
        "        store.emit(records.DamagedMeta(source.number, *at))\n"
        "    elif message.block.durability != MEMORY:\n"
        "        store.emit(\n            MoveMeta(\n",
        ("core/test_core_moving.py", "model"),
        "I1, I8: a crash between the two finds the message nowhere",
    ),
    Mutant(
        "purge forgets in-flight",
        "core/verbs/moving.py",
        "    lanes = queue.empty()\n",
        "    lanes = queue.empty()\n"
        "    queue.group.deliveries = {token: each for token, each in deliveries.items() if not each.spans}\n"
        "    deliveries = {token: each for token, each in deliveries.items() if each.spans}\n",
        ("core/test_core_administration.py", "model"),
        "I8: what was begun when its queue was purged comes again",
    ),
    Mutant(
        "output not paused",
        "core/model/sessions.py",
        "        return self.paused or self.silent or self.resting or self.room <= 0\n",
        "        return self.silent or self.resting or self.room <= 0\n",
        ("core/test_core_delivery.py",),
        "N6: deliveries to a peer that does not read go on",
    ),
    Mutant(
        "an id shown before its reservation is synced",
        "core/verbs/publishing.py",
        "    rests_on = max(store.rests_on(durability, size), queue.reserve_batch)\n",
        "    rests_on = store.rests_on(durability, size)\n",
        ("core/test_core_publishing.py",),
        "I2: an id of a message in memory means another one after a crash",
    ),
)

STEP_MUTANTS: Final = (
    Mutant(
        "a check that makes a queue",
        "core/verbs/publishing.py",
        "        store.check_new_queue(name, len(claims.new) if claims is not None else 0)\n",
        "        store.queue_or_new(name)\n",
        ("core/test_core_steps.py",),
        "a frame that is refused leaves a trace",
    ),
    Mutant(
        "two parts have the last place of a queue",
        "core/verbs/publishing.py",
        "            check_room(store, queue, asked if claims is None else claims.add(name, asked))\n",
        "            check_room(store, queue, asked)\n",
        ("core/test_core_steps.py",),
        "more messages than max_messages says",
    ),
    Mutant(
        "a step goes on without what it lost",
        "core/verbs/settling.py",
        "            if not work.holds(run):\n",
        "            if run[3] > 1 and not work.holds(run):\n",
        ("core/test_core_steps.py", "model"),
        "I6: the follow-ups of a job are published twice",
    ),
    Mutant(
        "a publish of a step has the outcome of its frame",
        "core/verbs/publishing.py",
        "    if has_outcome and len(frame.parts) == 1:\n        session",
        "    if has_outcome and frame.parts:\n        session",
        ("core/test_core_steps.py",),
        "N10: after a restart the frame is confirmed with one result instead of three",
    ),
)

KEPT_MUTANTS: Final = (
    Mutant(
        "a kept entry is lost by a digest",
        "core/durable/digest.py",
        "        self._done += map(_framed, self._states.values())\n",
        "        self._done += map(_framed, [*self._states.values()][:1])\n",
        ("core/test_core_kept.py",),
        "I2: what was kept is forgotten by a start",
    ),
    Mutant(
        "the end of a kept entry is lost by a digest",
        "core/durable/digest.py",
        '        self._states[says.kind, says.key] = RECORD, _packed(record, b"")\n',
        "        if says.value is None:\n"
        "            self._states.pop((says.kind, says.key), None)\n"
        "            return\n"
        '        self._states[says.kind, says.key] = RECORD, _packed(record, b"")\n',
        ("core/test_core_kept.py",),
        "I8: what ended in a later segment stands again",
    ),
    Mutant(
        "a kept entry is copied for ever",
        "core/model/kept.py",
        "        if entry.batch <= upto:\n            self._emit(store, entry)\n",
        "        if entry.batch:\n            self._emit(store, entry)\n",
        ("core/test_core_kept.py",),
        "each pass writes all of it again",
    ),
    Mutant(
        "what ended is copied",
        "core/model/kept.py",
        "            if entry.batch != NEVER:\n                self._sums.standing.drop(entry.batch, entry)\n",
        "            if entry.batch == NEVER:\n                self._sums.standing.drop(entry.batch, entry)\n",
        ("core/test_core_kept.py",),
        "I8: it stands again after a start",
    ),
    Mutant(
        "a kept entry does not expire",
        "core/model/kept.py",
        "    store.jobs.append(lambda: store.kept.empty_bucket(number))\n",
        "    _arm(store, number + 1)\n",
        ("core/test_core_kept.py",),
        "memory grows with all that was ever kept",
    ),
    Mutant(
        "a kept entry is over with its bucket",
        "core/model/kept.py",
        "        if entry is None or 0 < entry.expires_unix_ms <= store.unix_ms:\n            return None\n",
        "        if entry is None:\n            return None\n",
        ("core/test_core_kept.py",),
        "a window of a second is one of nine",
    ),
)

TIME_MUTANTS: Final = (
    Mutant(
        "wheel off by one slot",
        "core/model/wheel.py",
        "        tick, next_tick = -(-deadline_ms // TICK_MS), self._next_tick\n",
        "        tick, next_tick = deadline_ms // TICK_MS, self._next_tick\n",
        ("sim", "core/test_core_wheel.py"),
        "I9, T6: a delay or a lease ends early",
    ),
    Mutant(
        "delay from wall clock",
        "core/surviving.py",
        "    left = min(max(written_unix_ms + delay_ms - store.unix_ms, 0), delay_ms)\n",
        "    left = max(written_unix_ms + delay_ms - store.unix_ms, 0)\n",
        ("sim",),
        "I9, T3: a message waits for ten years",
    ),
)

COPY_MUTANTS: Final = (
    Mutant(
        "outcomes forgotten in a copy",
        "core/durable/forwarding.py",
        "            store.emit(meta, outcome.lost)\n",
        "            if outcome.lost:\n                store.emit(meta, outcome.lost)\n",
        ("model",),
        "I2, N10: a frame that is sent again is stored again",
    ),
    Mutant(
        "copy drops delayed",
        "core/durable/forwarding.py",
        "        if batch <= upto:\n            batch = store.open_batch",
        "        if item.ready_at_ms > store.now_ms:\n            batch = NEVER\n"
        "        if batch <= upto:\n            batch = store.open_batch",
        ("sim",),
        "I1: what waits for its time is in no segment any more",
    ),
    Mutant(
        "a copy that ignores an ack of the same batch",
        "core/replay.py",
        "            waiting.end_run(origin, first, count)\n        if meta.session:\n",
        "            kept = {k: m for k, m in waiting.messages.items() if m.block.batch == self._number}\n"
        "            waiting.end_run(origin, first, count)\n"
        "            waiting.messages.update(kept)\n"
        "        if meta.session:\n",
        ("core/test_core_forwarding.py",),
        "I7: what was copied and acked in one batch comes again",
    ),
    Mutant(
        "what comes behind a copy goes to the run that was there before",
        "core/durable/survivors.py",
        "        self.tail = None\n        if not self.firsts:",
        "        if not self.firsts:",
        ("core/test_core_cooling.py",),
        "I1: it is in a run that nobody has any more",
    ),
    Mutant(
        "copy forgets a lease",
        "core/durable/forwarding.py",
        "        lease_token=lease.token if lease is not None else 0,\n",
        "        lease_token=0,\n",
        ("model",),
        "I5: what is begun is ready after a start",
    ),
    Mutant(
        "a copy one batch short",
        "core/durable/forwarding.py",
        "        if span.block.batch <= upto:\n",
        "        if span.block.batch < upto:\n",
        ("core/test_core_forwarding.py", "sim"),
        "I1: the last batch of a segment is freed with it",
    ),
    Mutant(
        "a copy misses what left memory",
        "core/durable/forwarding.py",
        "        if run.batch <= upto:  # their bodies",
        "        if run.batch < 0:  # their bodies",
        ("core/test_core_paging.py", "sim"),
        "I1: what is cold is freed with its segment",
    ),
    Mutant(
        "a copy misses what has a key",
        "core/model/lanes.py",
        "            self.index.add(span)\n            self.ready += span.stop - span.first\n",
        "            self.ready += span.stop - span.first\n",
        ("core/test_core_forwarding.py",),
        "I1: fresh messages with a key are freed with their segment",
    ),
    Mutant(
        "a copy of several keys has one",
        "core/durable/blocks.py",
        "    if len(keys) > 1:\n",
        "    if len(keys) > 1_000:\n",
        ("core/test_budgets.py", "model"),
        "L5: after a start a message stands in the line of another key",
    ),
    Mutant(
        "a copy goes back to where it was published",
        "core/durable/forwarding.py",
        "        queue=queue.number,\n        origin=block.origin,\n",
        "        queue=block.origin,\n        origin=block.origin,\n",
        ("core/test_core_forwarding.py",),
        "I8: what was dead-lettered, moved or redriven is in its first queue after a start",
    ),
    Mutant(
        "a copy misses what is handed out behind the pass",
        "core/verbs/dispatching.py",
        "    if store.standing.took_old:\n        store.standing.add_delivery(delivery)\n",
        "    if store.standing.took_old:\n        store.standing.took_old = False\n",
        ("core/test_core_forwarding.py",),
        "I1: what left a bucket that was not looked at yet is freed with its segment",
    ),
)

COLD_MUTANTS: Final = (
    Mutant(
        "digest applies acks before begins",
        "core/durable/digest.py",
        "        done += [_framed(item) for item in self._others if item is not None]\n"
        "        for queue, intervals in self._acks.items():\n"
        "            packed = [_INTERVAL.pack(*interval) for interval in _merged(intervals)]\n"
        '            done.append(_framed((ACKS, queue.to_bytes(4, "little") + b"".join(packed))))\n',
        "        for queue, intervals in self._acks.items():\n"
        "            packed = [_INTERVAL.pack(*interval) for interval in _merged(intervals)]\n"
        '            done.append(_framed((ACKS, queue.to_bytes(4, "little") + b"".join(packed))))\n'
        "        done += [_framed(item) for item in self._others if item is not None]\n",
        ("core/test_core_digests.py",),
        "I7: a record of a message that has ended brings it back",
    ),
    Mutant(
        "digest forgets a purge's barrier",
        "core/durable/digest.py",
        "        self._close()\n        self._keep(says, record, at)\n        self._close()\n",
        "        self._keep(says, record, at)\n",
        ("core/test_core_digests.py",),
        "I8: what was purged comes back, or what came later is gone",
    ),
    Mutant(
        "cold run's ended messages handed out again",
        "core/durable/paging.py",
        "    return [Span(span.block, low, high, "
        '"", ready_at_ms) for low, high in run.live(first, stop)]\n',
        '    return [Span(span.block, first, stop, "", ready_at_ms)]\n',
        ("model",),
        "I7: what was acked comes again after it was read back",
    ),
    Mutant(
        "a place used before its record is synced",
        "core/durable/paging.py",
        "    if not lane.reading and lane.cold[0].batch <= store.synced:\n",
        "    if not lane.reading and lane.cold[0].batch:\n",
        ("core/test_core_cold.py",),
        "I3: another record is read, or none",
    ),
    Mutant(
        "a damaged frame that leaves no record",
        "core/durable/paging.py",
        "        store.emit(meta)\n        queue.group.counters",
        "        assert meta.count\n        queue.group.counters",
        ("core/test_core_cold.py",),
        "I8: what was set aside is asked for again by every start",
    ),
    Mutant(
        "a copy that names the old place",
        "core/durable/paging.py",
        "        record.extent = run.shelf.expect(extent)\n",
        "        record.extent = extent\n        run.shelf.append(piece[0].block.extent)\n",
        ("core/test_core_cold.py", "sim"),
        "I1: what was copied is read where it stood before, in a segment that is freed",
    ),
    Mutant(
        "copies of two batches in one run",
        "core/durable/paging.py",
        "        if not runs or (runs[-1].stop, runs[-1].batch) != (first, store.open_batch):\n",
        "        if not runs or runs[-1].stop != first:\n",
        ("core/test_core_cold.py",),
        "I1: what was copied is looked for in the segment of the last copy",
    ),
    Mutant(
        "an extent freed while a delivery has messages of it",
        "core/model/queues.py",
        "        extent.refs -= stop - first\n",
        "        extent.refs -= block.count\n",
        ("core/test_core_extents.py", "model"),
        "bounds of memory: bytes are in memory that nobody counts",
    ),
    Mutant(
        "an extent that is never freed",
        "core/durable/paging.py",
        "    run.shelf.append(block.extent)\n    store.sums.let_go(span)\n",
        "    run.shelf.append(block.extent)\n",
        ("core/test_core_extents.py", "model"),
        "bounds of memory: publishes are refused for bytes that left it",
    ),
)

CORE_MUTANTS: Final = (
    DELIVERY_MUTANTS + STEP_MUTANTS + KEPT_MUTANTS + TIME_MUTANTS + COPY_MUTANTS + COLD_MUTANTS
)
