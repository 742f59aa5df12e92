"""Bugs of sessions: what is withdrawn, what comes back after a lost connection, what ends without a word."""

from __future__ import annotations

from typing import Final

from mutant import Mutant

WITHDRAWAL_MUTANTS: Final = (
    Mutant(
        "a move goes round the wait of a start",
        "core/verbs/takers.py",
        "    while is_awaiting(walk.store, queue):\n",
        "    while is_awaiting(walk.store, queue) and not walk.store:\n",
        ("core/test_core_awaiting.py",),
        "what a worker began just before a crash is handed out in another queue",
    ),
    Mutant(
        "what was moved before it was begun is not given back",
        "core/verbs/logins.py",
        "    for queue in list(taken_by(store, session)):\n",
        "    for queue in ():\n",
        ("core/test_core_awaiting.py",),
        "a worker that comes back loses it, and it runs again",
    ),
    Mutant(
        "a start waits for nobody",
        "core/returning.py",
        "    return bool(queue.group.lanes.ready or queue.group.delayed_count)\n",
        "    return False\n",
        ("core/test_core_absent.py", "sim"),
        "I5: what was begun just before a crash is handed to somebody else before its client is back",
    ),
    Mutant(
        "a session delivers before it is known",
        "core/verbs/dispatching.py",
        "        taking = note_taking(store, session, queue)\n",
        "        taking = 0 * note_taking(store, session, queue)\n",
        ("core/test_core_absent.py",),
        "I5: a crash loses who had the first message of a session, and nobody waits for it",
    ),
    Mutant(
        "a stop takes its sessions for gone",
        "core/verbs/farewells.py",
        "    if not (store.is_stopping or session.id in store.absent):  # else it is about to be back\n",
        "    if session.id not in store.absent:\n",
        ("core/test_core_absent.py",),
        "I5: what was begun in the last moment of a stop is handed to somebody else",
    ),
    Mutant(
        "a session that is back frees all queues",
        "core/verbs/takers.py",
        "    if not absent:\n        store.effects.note",
        "    if len(absent) >= 0:\n        store.effects.note",
        ("core/test_core_absent.py",),
        "I5: one worker is back, and what the others had is handed out",
    ),
    Mutant(
        "a withdrawal that keeps the receive",
        "core/verbs/withdrawing.py",
        "    if receive is not None:\n        end_receive(store, connection, receive)\n",
        "    if receive is not None:\n        receive.request = request\n",
        ("sim", "core/test_core_withdrawing.py"),
        "I9: a message goes to a caller that is gone",
    ),
    Mutant(
        "a withdrawn answer stays begun",
        "core/verbs/withdrawing.py",
        "    return connection.session.back_batch if delivery is None else _put_back(store, delivery)\n",
        "    return connection.session.back_batch if delivery is None else store.open_batch\n",
        ("sim", "core/test_core_withdrawing.py"),
        "I4: nobody works on it, and its lease is charged as an attempt",
    ),
    Mutant(
        "a withdrawal that charges an attempt",
        "core/verbs/withdrawing.py",
        "        message.ended_token, message.started_unix_ms = delivery.token, 0\n",
        "        message.ended_token, message.started_unix_ms = delivery.token, 0\n"
        "        failed, expired, worker_lost = message.attempts\n"
        "        message.attempts = (failed, expired, worker_lost + 1)\n",
        ("sim", "core/test_core_withdrawing.py"),
        "I4: a message whose callers change their minds ends in its DLQ",
    ),
    Mutant(
        "a withdrawal that counts a release",
        "core/verbs/withdrawing.py",
        "        message.ended_token, message.started_unix_ms = delivery.token, 0\n",
        "        message.ended_token, message.started_unix_ms = delivery.token, 0\n"
        "        message.releases += 1\n"
        "        if message.releases > 1:\n"
        "            message.ready_at_ms = store.now_ms + 1_000\n",
        ("core/test_core_withdrawing.py",),
        "what was never handed out waits for a second",
    ),
    Mutant(
        "a second answer leaves before the first is back",
        "core/verbs/requests.py",
        "        consumer.batch = ask_again(store, connection.session, request)\n",
        "        ask_again(store, connection.session, request)\n",
        ("core/test_core_withdrawing.py",),
        "I4: after a crash the first is begun for nobody",
    ),
    Mutant(
        "a listing that knows what was there before a read",
        "core/verbs/listing.py",
        "                    break  # it was read: anything may have changed meanwhile\n",
        "                    continue\n",
        ("core/test_core_listing.py",),
        "E1: a look stops the broker",
    ),
    Mutant(
        "a number means its first request for ever",
        "core/verbs/withdrawing.py",
        "        connection.session.has_answer(delivery)\n",
        "        connection.session.received[request] = delivery.token\n",
        ("core/test_core_withdrawing.py",),
        "I6: a withdrawal takes back what a worker has",
    ),
    Mutant(
        "a start forgets which request a lease answers",
        "core/surviving.py",
        "        if meta.request is not None:\n",
        "        if meta.request is not None and meta.token not in store.deliveries:\n",
        ("core/test_core_withdrawing.py",),
        "I4: an answer that was lost with its server is charged to a worker that never was",
    ),
    Mutant(
        "a copied lease answers nothing",
        "core/durable/forwarding.py",
        "        request=lease.request if lease is not None else None,\n",
        "",
        ("core/test_core_withdrawing.py",),
        "I4: the same, once the segment was freed that had the lease first",
    ),
)

RETURN_MUTANTS: Final = (
    Mutant(
        "the outcome of a forgotten session is new",
        "core/verbs/logins.py",
        "        session.answered_below = int(ended[0])\n",
        "        session.answered_below = max(1, session.answered_below)\n",
        ("core/test_core_sessions.py",),
        "I2, N10: a publish that comes again after ten minutes is stored twice",
    ),
    Mutant(
        "a session comes back from the dead",
        "core/verbs/farewells.py",
        "    if recorded or says:\n",
        "    if says:\n",
        ("core/test_core_sessions.py",),
        "I11: a start remembers every session that said goodbye",
    ),
    Mutant(
        "a frozen client gets back what it let expire",
        "core/verbs/attempts.py",
        "        store.connections[session.connection].silent = True\n",
        "        store.connections[session.connection].silent = session.blank\n",
        ("core/test_core_expiring.py",),
        "I9: the last attempts of a message are those of a loop that stands still",
    ),
    Mutant(
        "a lease that ends twice",
        "core/verbs/attempts.py",
        "        del delivery.alone[queue.key_of(message.block.origin, message.sequence)]\n"
        "        started_unix_ms",
        "        started_unix_ms",
        ("model",),
        "I5, I6: an ack under a lease that is over ends what somebody else has begun",
    ),
    Mutant(
        "the dead are handed out while their DLQ is full",
        "core/verbs/moving.py",
        "        doom(store, queue, message)\n        return\n",
        "        doom(store, queue, message)\n"
        "        wait(store, queue.group, message)\n"
        "        return\n",
        ("core/test_core_full_dlq.py", "model"),
        "I4, I8: attempts beyond the maximum",
    ),
    Mutant(
        "a start hands out the dead",
        "core/replay.py",
        "            message.marked, message.dead = meta.marked, meta.dead\n",
        "            message.marked, message.dead = meta.marked, False\n",
        ("core/test_core_full_dlq.py", "model"),
        "I4: the same after a restart",
    ),
)

BOUND_MUTANTS: Final = (
    Mutant(
        "room for one lets a frame in",
        "core/verbs/overflowing.py",
        "    return queue.count() + asked.messages <= queue.max_messages\n",
        "    return queue.count() + 1 <= queue.max_messages\n",
        ("core/test_core_borders.py",),
        "max_messages: a thousand go into a queue with room for one",
    ),
    Mutant(
        "receives without end",
        "core/verbs/requests.py",
        "    if len(connection.receives) >= limits.MAX_RECEIVES_PER_CONNECTION:\n",
        "    if len(connection.receives) >= limits.MAX_RECEIVES_PER_CONNECTION << 20:\n",
        ("core/test_core_withdrawing.py",),
        "I11: one connection takes what memory there is",
    ),
    Mutant(
        "sessions without end",
        "core/verbs/logins.py",
        "    if len(store.sessions) >= limits.MAX_SESSIONS:\n",
        "    if len(store.connections) >= limits.MAX_SESSIONS:\n",
        ("core/test_core_sessions.py",),
        "I11: sessions that nobody comes back to are kept, however many",
    ),
    Mutant(
        "a batch larger than a segment",
        "core/model/state.py",
        "        if total_bytes > self.room_bytes and effects.records:\n",
        "        if total_bytes > 2**30 and effects.records:\n",
        ("core/test_core_batches.py",),
        "what one frame emits ends the process, at every try",
    ),
    Mutant(
        "what is said of a duplicate is in no record",
        "core/core.py",
        "store.effects.records or (lost and _names_what_stands(results))",
        "store.effects.records",
        ("core/test_core_unique_answers.py",),
        "a frame whose client was told that nothing of it is stored is stored after a restart",
    ),
    Mutant(
        "what stands is said before the record of that is safe",
        "core/verbs/publishing.py",
        "max(store.rests_on(durability, size), before)",
        "before",
        ("core/test_core_unique_answers.py",),
        "a broker that was overtaken says that a message stands which has ended",
    ),
)

SESSION_MUTANTS: Final = WITHDRAWAL_MUTANTS + RETURN_MUTANTS + BOUND_MUTANTS
