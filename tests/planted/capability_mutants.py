"""Bugs of what is beside the way of a message: times to live, priorities, schedules, steps, results and more."""

from __future__ import annotations

from typing import Final

from mutant import Mutant

TTL_MUTANTS: Final = (
    Mutant(
        "a delivery does not look at the end of a message",
        "core/verbs/expiring.py",
        "        if found.expires_ms <= store.now_ms and may_expire(group.queue, item):\n"
        "            ended.append(item)\n",
        "        if found.expires_ms < 0 and may_expire(group.queue, item):\n"
        "            ended.append(item)\n",
        ("core/test_core_lifetimes.py", "model"),
        "5.13: between the end of its time and the next tick a message is handed out",
    ),
    Mutant(
        "a start gives a whole time to live again",
        "core/model/lifetimes.py",
        "    left_ms = min(max(block.unix_ms + ttl_ms - store.unix_ms, 0), ttl_ms)\n",
        "    left_ms = min(max(block.unix_ms + ttl_ms, 0), ttl_ms)\n",
        ("core/test_core_lifetimes.py", "model"),
        "5.13: each restart makes messages young again",
    ),
    Mutant(
        "what comes back too late waits for ever",
        "core/model/lifetimes.py",
        "        if found.expires_ms <= store.now_ms and may_expire(group.queue, item):\n",
        "        if found.expires_ms < 0 and may_expire(group.queue, item):\n",
        ("core/test_core_lifetimes.py", "model"),
        "5.13: a message that failed after its end stays in its queue",
    ),
)

PRIORITY_MUTANTS: Final = (
    Mutant(
        "a priority is first by its number upwards",
        "core/model/priorities.py",
        "            insort(self._order, -priority)\n"
        "            self.levels.insert(self._order.index(-priority), lanes)\n",
        "            insort(self._order, priority)\n"
        "            self.levels.insert(self._order.index(priority), lanes)\n",
        ("core/test_core_priorities.py", "model"),
        "5.1: what is urgent waits behind what is not",
    ),
    Mutant(
        "a copy forgets a priority",
        "core/durable/forwarding.py",
        "        own_priority=block.terms.priority,\n",
        "        own_priority=0,\n",
        ("core/test_core_priorities.py", "model"),
        "after some segments and a restart what is urgent waits behind what is not",
    ),
)

SCHEDULE_MUTANTS: Final = (
    Mutant(
        "the next time of a schedule is not recorded",
        "core/verbs/firing.py",
        "    store.schedules.put(store, schedule)\n\n\ndef _wait",
        "    store.schedules.enter(schedule)\n\n\ndef _wait",
        ("core/test_core_schedules.py", "sim"),
        "S1: a job is published again after a crash",
    ),
    Mutant(
        "a job and its next time are in two batches",
        "core/verbs/firing.py",
        "    store.keep_together(bytes_of(schedule))\n",
        "    assert bytes_of(schedule)\n",
        ("core/test_core_schedules.py",),
        "S1: a crash between the two publishes a job twice",
    ),
)

STEP_MUTANTS: Final = (
    Mutant(
        "a step settles what it still holds",
        "core/verbs/parts.py",
        "    claims = Claims(is_step=frame.is_step)\n",
        "    claims = Claims(is_step=False)\n",
        ("core/test_core_steps.py", "model"),
        "3.3: what follows from an ack is published though the ack came too late",
    ),
    Mutant(
        "a step is not measured as a whole",
        "core/verbs/parts.py",
        "    return frame.size + PUBLISH_OVERHEAD_BYTES * records\n",
        "    return (frame.size + PUBLISH_OVERHEAD_BYTES * records) * 0\n",
        ("core/test_core_steps.py",),
        "I12: a step falls into two batches, and a crash takes one of them",
    ),
)

RESULT_MUTANTS: Final = (
    Mutant(
        "a result is told before its end is safe",
        "core/model/noting.py",
        "    tell_one(store, queue, id, outcome, value, store.open_batch if logged else 0)\n",
        "    tell_one(store, queue, id, outcome, value, 0 if logged else 0)\n",
        ("core/test_core_results.py",),
        "I1: somebody goes on with a result that a crash takes back",
    ),
    Mutant(
        "a result of other queues is told",
        "core/model/noting.py",
        "    if asked.queue:\n        return asked.queue in places\n",
        "    if asked.queue:\n        return bool(places)\n",
        ("core/test_core_results.py",),
        "rights: who may read one queue reads the results of all",
    ),
)

REDRIVE_MUTANTS: Final = (
    Mutant(
        "a canary is sent whole after a restart",
        "core/verbs/redriving.py",
        "            yield from self._send(plan.canary - len(progress.canaries))\n",
        "            yield from self._send(plan.canary)\n",
        ("core/test_core_redriving.py",),
        "a restart sends more before anybody has seen what became of the first",
    ),
    Mutant(
        "a canary that died in its source is taken for one at work",
        "core/verbs/redriving.py",
        "            dead |= {id: item for id, item in at_work.items() if is_dead(item)}\n",
        "            dead |= {id: item for id, item in at_work.items() if is_dead(item) and id in dead}\n",
        ("core/test_core_redriving.py",),
        "while the dead-letter queue is full a redrive waits for ever for what died again",
    ),
    Mutant(
        "a redrive is not known after a restart",
        "core/verbs/redriving.py",
        "        elif known is not None and known[1].state in RUNNING:\n            _begin(store, dlq, *known)\n",
        "        elif known is not None and known[1].state == CANARY:\n            _begin(store, dlq, *known)\n",
        ("core/test_core_redriving.py",),
        "a redrive stands still, and says that it runs",
    ),
)

CIRCUIT_MUTANTS: Final = (
    Mutant(
        "a circuit that is tried lets more than one go",
        "core/model/circuits.py",
        "    return int(newest < circuit.token)  # what was handed out since is being tried\n",
        "    return int(newest < circuit.token + 2)  # what was handed out since is being tried\n",
        ("core/test_core_circuits.py",),
        "5.12: what is broken gets several attempts at a time",
    ),
    Mutant(
        "an attempt of before decides what is tried",
        "core/model/circuits.py",
        "    elif circuit.state == PROBING and token >= circuit.token:\n",
        "    elif circuit.state == PROBING and token:\n",
        ("core/test_core_circuits.py",),
        "5.12: a circuit closes by an end that says nothing of today",
    ),
    Mutant(
        "an open circuit is closed by a restart",
        "core/model/circuits.py",
        "    store.kept.put(store, CIRCUIT, (queue.number,), value)\n",
        "    store.kept.put(store, CIRCUIT, (queue.number,), value, 1)\n",
        ("core/test_core_circuits.py",),
        "5.12: a restart charges attempts to messages that are not to blame",
    ),
)

RATE_MUTANTS: Final = (
    Mutant(
        "a bucket fills beyond its burst",
        "core/model/rates.py",
        "        return max(taken_to, now_ms - TICK_MS)\n",
        "        return max(taken_to, now_ms - 1_000 * TICK_MS)\n",
        ("core/test_core_rates.py",),
        "a key that was quiet goes beyond its rate",
    ),
    Mutant(
        "a token of what was not handed out is lost",
        "core/model/keys.py",
        "            self.each.take(item.key, -(item.stop - item.first), self._store.now_ms)\n",
        "            self.each.take(item.key, 0, self._store.now_ms)\n",
        ("core/test_core_rates.py",),
        "a key is slower than its rate by what was not handed out",
    ),
    Mutant(
        "a token that is given back opens nothing",
        "core/model/keys.py",
        "        if self.each is not None and not self.most:  # then no end of work opens a key\n",
        "        if self.each is not None and self.most < 0:  # then no end of work opens a key\n",
        ("core/test_core_rates.py",),
        "a key waits for a whole period though it has its token",
    ),
    Mutant(
        "a token of what expired is lost",
        "core/verbs/expiring.py",
        "                group.keys.untook(item)\n",
        "                group.keys.ended_work((item,))\n",
        ("core/test_core_rates.py",),
        "the same, by what was over when its turn came",
    ),
)

PAUSE_MUTANTS: Final = (
    Mutant(
        "a pause does not outlive a restart",
        "core/model/pauses.py",
        "                store.by_number[number].group.paused = True\n",
        "                store.by_number[number].group.paused = what != QUEUE\n",
        ("core/test_core_pauses.py",),
        "a queue that somebody paused goes on after a restart",
    ),
    Mutant(
        "a drained worker is charged for what it gave back",
        "core/verbs/draining.py",
        "        item.ended_token = delivery.token\n",
        "        item.attempts = (item.attempts[0] + 1, *item.attempts[1:])\n"
        "        item.ended_token = delivery.token\n",
        ("core/test_core_pauses.py",),
        "I4: a roll-out uses up the attempts of jobs that did not fail",
    ),
)

RECALL_MUTANTS: Final = (
    Mutant(
        "all that a busy worker holds is asked back",
        "core/verbs/recalling.py",
        "min(-(-held[consumer] // 2), wanted, MOST_MESSAGES))\n",
        "min(held[consumer], MOST_MESSAGES))\n",
        ("core/test_core_recalling.py",),
        "take-back: messages go to and fro, and the busy one stands still when it is done",
    ),
    Mutant(
        "what was just handed out is asked back",
        "core/verbs/recalling.py",
        "        if delivery.token < below and consumer.active:\n",
        "        if below and consumer.active:\n",
        ("core/test_core_recalling.py",),
        "take-back: a worker is asked for what it has just got",
    ),
)

CAPABILITY_MUTANTS: Final = (
    TTL_MUTANTS
    + PRIORITY_MUTANTS
    + SCHEDULE_MUTANTS
    + STEP_MUTANTS
    + RESULT_MUTANTS
    + REDRIVE_MUTANTS
    + CIRCUIT_MUTANTS
    + RATE_MUTANTS
    + PAUSE_MUTANTS
    + RECALL_MUTANTS
)
