"""Bugs of what people look at and turn: calendars, pauses, circuits of keys, dead letters, progress, times."""

from __future__ import annotations

from typing import Final

from mutant import CLIENT, Mutant

CALENDARS: Final = ("schedules/test_calendars.py",)
SCHEDULES: Final = ("core/test_core_schedules.py",)
CALENDAR_MUTANTS: Final = (
    Mutant(
        "a time of the first pass is named again in the second",
        "schedules/calendars.py",
        "                if start_ms + second * 1_000 > unix_ms:\n",
        "                if start_ms + second * 1_000 != unix_ms:\n",
        CALENDARS,
        "5.15: in the night when clocks go back a schedule names a time that is over",
    ),
    Mutant(
        "a step over one number goes on behind it",
        "schedules/calendars.py",
        '    fields = _RANGE_OF_ONE.sub(r"\\1", text).split()\n',
        "    fields = text.split()\n",
        CALENDARS,
        "5.15: what is to run in the first hour runs in the seventh, too",
    ),
    Mutant(
        "all that was missed is made up for",
        "core/model/scheduled.py",
        '    if not is_last and not (misfire == "all" and schedule.late < MOST_MISSED):\n',
        '    if not is_last and not (misfire != "skip" and schedule.late < MOST_MISSED):\n',
        SCHEDULES,
        "5.15: after a day without a server a job of each minute comes 1,440 times",
    ),
    Mutant(
        "what was missed without end is made up for without end",
        "core/verbs/firing.py",
        "        schedule.late = schedule.late + 1 if is_late else 0\n",
        "        schedule.late = schedule.late if is_late else 0\n",
        SCHEDULES,
        "5.15: a year of seconds is published, one after the other",
    ),
    Mutant(
        "a clock that is set forward is not noticed",
        "core/verbs/firing.py",
        "    until_ms = store.now_ms + min(max(at_unix_ms - store.unix_ms, 0), LOOK_MS)\n",
        "    until_ms = store.now_ms + max(at_unix_ms - store.unix_ms, 0)\n",
        SCHEDULES,
        "5.15: what is due by the clock comes an hour late",
    ),
    Mutant(
        "a clock that is set back has its jobs again",
        "core/verbs/firing.py",
        "    schedule.next_unix_ms = plan.next\n    if plan.missed:\n",
        "    schedule.next_unix_ms = min(plan.next, store.unix_ms + LOOK_MS)\n    if plan.missed:\n",
        SCHEDULES,
        "5.15: an instant that the calendar does not name has a job",
    ),
)

PAUSES: Final = ("core/test_core_pauses.py",)
DRAIN_MUTANTS: Final = (
    Mutant(
        "versions are compared as texts",
        "core/model/pauses.py",
        '    numbers = [int(number) for number in text.split(".")] if text else []\n',
        '    numbers = [int(number[0]) for number in text.split(".")] if text else []\n',
        PAUSES,
        "5.16: a roll-out to 1.10 drains 1.9 and what is newer",
    ),
    Mutant(
        "a client without a version is above all",
        "core/model/pauses.py",
        "    return (int(bool(text)), *numbers)\n",
        "    return (int(not text), *numbers)\n",
        PAUSES,
        "5.16: the oldest workers of all go on",
    ),
    Mutant(
        "what went back at a deadline is not logged",
        "core/verbs/draining.py",
        "        store.write_return(queue, [item], 0, None)\n",
        "        assert queue.group.deliveries is not None\n",
        PAUSES,
        "I1, I6: after a crash the old worker's ack counts, and another one works on the message",
    ),
    Mutant(
        "a drained worker is not told",
        "core/verbs/draining.py",
        "            tell(store, session.id, queue, runs, pause.by)\n",
        "            tell(store, -session.id, queue, runs, pause.by)\n",
        PAUSES,
        "5.16: a handler goes on with what somebody else has",
    ),
    Mutant(
        "a pause does not end by itself",
        "core/model/pauses.py",
        "        ends = [each.until_unix_ms for each in self if each.until_unix_ms]\n",
        "        ends = [each.until_unix_ms for each in self if each.until_unix_ms < 0]\n",
        PAUSES,
        "5.16: who pauses for ten minutes pauses for ever",
    ),
)

KEY_CIRCUITS: Final = ("core/test_core_key_circuits.py",)
BREAKER_MUTANTS: Final = (
    Mutant(
        "any message of a key decides what is tried",
        "core/model/key_circuits.py",
        "        return self.is_out and self.tried == (item.block.origin, item.first)\n",
        "        return self.is_out\n",
        KEY_CIRCUITS,
        "5.12: a circuit closes, or opens anew, by an end that says nothing of today",
    ),
    Mutant(
        "failures of a key are never forgotten",
        "core/model/key_circuits.py",
        "        old, self._before, self._now = self._before, self._now, {}\n",
        "        old, self._before, self._now = self._now, self._before | self._now, {}\n",
        KEY_CIRCUITS,
        "5.12: a key that fails once a day opens in the end",
    ),
    Mutant(
        "a start tries what is broken at once",
        "core/model/key_circuits.py",
        "        left_ms = min(max(until_unix_ms - self._store.unix_ms, 0), longest_ms)\n",
        "        left_ms = min(max(until_unix_ms - self._store.unix_ms, 0), longest_ms) * 0\n",
        KEY_CIRCUITS,
        "5.12: each restart charges an attempt to a message that is not to blame",
    ),
    Mutant(
        "what is tried and comes back keeps its key closed",
        "core/model/keys.py",
        "            key.circuit.is_out = False\n",
        "            key.circuit.is_out = bool(item.key)\n",
        KEY_CIRCUITS,
        "5.12: a worker that releases what is tried leaves its key closed for ever",
    ),
)

GROUPS: Final = ("core/test_core_error_groups.py",)
DEATH_MUTANTS: Final = (
    Mutant(
        "numbers keep deaths apart",
        "core/model/deaths.py",
        '        text = NUMBERS.sub("#", text)\n',
        "        text = text.strip()\n",
        GROUPS,
        "dead letters: a thousand messages that died of one thing are a thousand groups",
    ),
    Mutant(
        "a place in the code is no matter",
        "core/model/deaths.py",
        '    alike = f"{cause}\\0{error_class}\\0{place or text}"\n',
        '    alike = f"{cause}\\0{error_class}\\0{text}"\n',
        GROUPS,
        "dead letters: one line of code that failed is as many groups as it had texts",
    ),
    Mutant(
        "what died later goes back, too",
        "core/model/deaths.py",
        "        if self.below_token and isinstance(item, Message) and item.ended_token >= self.below_token:\n",
        "        if self.below_token < 0 and isinstance(item, Message) and item.ended_token:\n",
        GROUPS,
        "dead letters: a redrive goes round and round with what dies again",
    ),
    Mutant(
        "a filter by age is turned round",
        "core/model/deaths.py",
        "        if died < self.from_unix_ms or (self.until_unix_ms and died > self.until_unix_ms):\n",
        "        if died < self.until_unix_ms or (self.from_unix_ms and died > self.from_unix_ms):\n",
        GROUPS,
        "dead letters: those of today go back instead of those of yesterday",
    ),
)

RESULTS: Final = ("core/test_core_results.py",)
PROGRESS_MUTANTS: Final = (
    Mutant(
        "progress is told to who does not ask for it",
        "core/verbs/results.py",
        "        if asked.mark is not None and may_know(store, asked, queue.number):\n",
        "        if may_know(store, asked, queue.number):\n",
        RESULTS,
        "results: who waits for the end is told of the first step",
    ),
    Mutant(
        "a result that is there is told before it is safe",
        "core/verbs/results.py",
        "        rests_on = entry.batch\n",
        "        rests_on = 0\n",
        RESULTS,
        "I1: who asks behind the ack is told what a crash takes back",
    ),
    Mutant(
        "progress is left behind for ever",
        "core/model/results.py",
        "        if len(self.progress) > MOST_PROGRESS:\n",
        "        if len(self.progress) > MOST_PROGRESS << 20:\n",
        RESULTS,
        "bounds of memory: each message that ever said how far it was is remembered",
    ),
)

TIMED: Final = ("core/test_core_timed.py", "core/test_core_timing.py")
METRIC_MUTANTS: Final = (
    Mutant(
        "the others have what the first ones had",
        "core/model/timed.py",
        "            counts = [left - count for left, count in zip(counts, found.counts, strict=True)]\n",
        "            counts = [left - 0 * count for left, count in zip(counts, found.counts, strict=True)]\n",
        TIMED,
        "times: the sum of all queues is more than what there was",
    ),
    Mutant(
        "a window is counted twice",
        "core/model/timed.py",
        "            if window is not new.before:\n",
        "            if window is not new:\n",
        TIMED,
        "times: what happened once is in the window and in what lasts",
    ),
    Mutant(
        "a deleted queue leaves its times to the others",
        "core/model/timed.py",
        "            self.ended.waits.add_all(lasting.waits)\n",
        "            assert lasting.waits\n",
        TIMED,
        "times: a counter jumps when a queue is deleted",
    ),
    Mutant(
        "a consumer with work has nothing to do",
        "core/verbs/dispatching.py",
        "    if not consumer.outstanding:\n        consumer.idle_ms",
        "    if consumer.outstanding >= 0:\n        consumer.idle_ms",
        TIMED,
        "times: busy workers look idle, and some are taken away",
    ),
    Mutant(
        "handlers for what comes, and none for what waits",
        "core/model/times.py",
        '        mean_ms * (said["published"] / said["window_ms"] + backlog / target_ms)\n',
        '        mean_ms * (said["published"] / said["window_ms"] + 0 * backlog / target_ms)\n',
        TIMED,
        "times: a backlog is never worked off by as many handlers as are asked for",
    ),
)

TAKEBACK_MUTANTS: Final = (
    Mutant(
        "what was given back begins here, too",
        "session/subscription.py",
        "                self._buffer.remove(message)\n",
        "                self._buffer.index(message)\n",
        ("conformance/test_consuming_in_both.py",),
        "take-back: a message is worked on by two",
        CLIENT,
    ),
    Mutant(
        "what went back counts as worked off",
        "session/pacing.py",
        "        self._left = max(0, self._left - count)\n",
        "        self._left = max(0, self._left - 0 * count)\n",
        ("client/test_pacing.py",),
        "prefetch auto: the busier a worker is, the more it asks for",
        CLIENT,
    ),
    Mutant(
        "time in which nobody had anything counts as work",
        "session/pacing.py",
        "        busy_ms = max(1.0, took_ms - self._idle_ms)\n",
        "        busy_ms = max(1.0, took_ms - 0 * self._idle_ms)\n",
        ("client/test_pacing.py",),
        "prefetch auto: a fast worker on a slow queue gets one message at a time",
        CLIENT,
    ),
)

OPERATING_MUTANTS: Final = (
    CALENDAR_MUTANTS
    + DRAIN_MUTANTS
    + BREAKER_MUTANTS
    + DEATH_MUTANTS
    + PROGRESS_MUTANTS
    + METRIC_MUTANTS
    + TAKEBACK_MUTANTS
)
