"""What must hold where a world uses more of its broker (sim_capabilities.py), laid beside what was handed out.

Pure, as the checker is, and like it told of what clients intended and heard. Times are those at which the broker
handed something out (sim_ledger.py), so neither a slow link nor a slow disk is taken for a broken law:

K1 no more of a key are in work at a time than its queue says; K2 where that is one, none comes after a later one
C1 what was cancelled, replaced or purged is handed out no more
P1 nothing is handed out while something of more priority is ready, in a queue without `max_wait_ms`
T1 nothing is handed out after its time to live
V1 in no time more are handed out than the rate of the queue, or of the key, lets through
S1 where one consumer at a time is active, no two have messages of the queue
Z1 while a queue is paused, or a key, nothing of it is handed out
U1 while a message is there, no other one of its unique key is stored (`drop`)
U2 a duplicate names one that is there, under the same key or id; D1 of a dedupe id one message is stored
R1 a message came to what its worker said, and comes no more; A1 a step is done as a whole, or not at all
F1 a message is not handed out before all have ended that it waits for
H1-H4 what was begun as it was handed out is charged to whom it belongs (sim_handed.py)
L1 no queue has more than its limit; L2 no more are lost in a full queue than it says that it dropped

A law is about a queue from when its settings are confirmed, and never again after somebody asked for its end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from checker import OK, REFUSED, SLACK_US, UNKNOWN, Checker, Handed, History, Id, Intent, epoch_of
from sim_ledger import Ledger
from sim_steps import Follower, Step, result_of

from minibroker.contract.bodies import decode_body
from minibroker.contract.wire import ENCODING_MSGPACK

REPLACING = ("replace", "keep-latest")  # modes of unique keys
EXPIRED_US = 10 * SLACK_US  # a tick of the wheel, and a millisecond on each side


@dataclass(frozen=True, slots=True)
class Standing:
    """The settings of a queue, and since when they hold for certain."""

    since_us: int
    settings: Mapping[str, Any]


@dataclass(slots=True)
class Pause:
    """A pause of a queue, or of one of its keys, that somebody asked for; 0 ms: he lets it go on."""

    queue: str
    key: bytes
    sent_us: int
    for_ms: int
    done_us: int | None = None  # when he heard of it

    def holds(self, us: int) -> bool:
        """Whether it certainly lasted then, if nobody said anything else meanwhile."""
        ends_us = self.sent_us + 1_000 * self.for_ms - SLACK_US
        return self.done_us is not None and self.done_us < us < ends_us


@dataclass(frozen=True, slots=True)
class Delivered:
    """One message as it was handed out; `us`: when the broker did."""

    id: Id
    intent: Intent
    history: History
    handed: Handed
    us: int
    settings: Mapping[str, Any]


class Laws:
    """Judges what is delivered; violations are the checker's."""

    def __init__(self, checker: Checker, ledger: Ledger) -> None:
        self._checker = checker
        self._ledger = ledger
        self._standing: dict[str, Standing | None] = {}  # None: somebody asked for the end of it
        self._of_key: dict[tuple[str, bytes], list[Delivered]] = defaultdict(list)
        self._fresh: dict[str, list[Delivered]] = defaultdict(list)
        self._unique: dict[tuple[str, bytes], list[Intent]] = defaultdict(
            list
        )  # stored, by queue and key
        self._deduped: dict[tuple[str, bytes], list[Intent]] = defaultdict(list)
        self.steps: list[Step] = []
        self.pauses: list[Pause] = []
        self._counted: dict[tuple[str, bytes, int], list[int]] = defaultdict(list)  # times, by life
        self._within: set[str] = set()  # queues that were seen within their limit
        self.drops_oldest: set[str] = set()  # queues that may be set so, standing or not
        self._dropped: dict[str, int] = defaultdict(int)  # by what the queues say, in all lives
        self._lost: dict[str, int] = defaultdict(int)  # of which nothing else is known
        self._now_us = 0
        self.is_bound = (
            False  # the exchange of the world led to all queues, and does but to deleted ones
        )
        self.jumped = False  # the wall clock, by which a broker that is down grows older
        self.cancelled_us: dict[Id, int] = {}  # when somebody heard that it is done
        self.judged = 0

    def stands(self, queue: str, settings: Mapping[str, Any], now_us: int) -> None:
        """The settings of a queue were confirmed."""
        known = self._standing.setdefault(queue, Standing(now_us, settings))
        if known is not None and known.settings != settings:
            self._standing[queue] = Standing(now_us, settings)
            self._within.discard(queue)

    def falls(self, queue: str) -> None:
        """Somebody asks for the end of a queue: when it begins anew nobody knows."""
        self._standing[queue] = None

    def done(self, id: Id, result: bytes, now_us: int) -> None:
        """Somebody heard that a message is done, and what it came to; empty: nothing was said."""
        if result and decode_body(result, ENCODING_MSGPACK) != result_of(id):
            self._checker.violation("R1", f"{id} came to {result!r}")
        self._checker.cancels[id] = True
        self.cancelled(id, now_us)

    def is_standing(self, queue: str) -> bool:
        """Whether the settings of a queue hold for certain."""
        return self._standing.get(queue) is not None

    def cancelled(self, id: Id, now_us: int) -> None:
        """Somebody heard that a message was cancelled."""
        self.cancelled_us.setdefault(id, now_us)

    # -- publishing -----------------------------------------------------------------------------

    def stored(self, intent: Intent) -> None:
        """A message was confirmed, and is no duplicate."""
        if intent.unique:
            self._unique[intent.queue, intent.unique].append(intent)
        if intent.dedupe:
            self._deduped[intent.queue, intent.dedupe].append(intent)

    def duplicate(self, intent: Intent, id: Id, now_us: int) -> None:
        """A publish was told that it is one of the message with this id, which is safe then."""
        self._checker.refused(intent)
        other = self._checker.by_id.get(id)
        if other is None:
            return
        if other.outcome == UNKNOWN:
            self._checker.stored(other, id, now_us)
            self.stored(other)
        # An id that came first with a key that was held stands for the holder of that, whatever its own id is.
        is_deduped = bool(intent.dedupe)
        if other.queue != intent.queue or not (is_deduped or intent.unique == other.unique):
            self._checker.violation("U2", f"{intent.body!r} is said to be one of {other.body!r}")
        acked = other.history is not None and 0 < other.history.acked_us < intent.sent_us
        if not is_deduped and (acked or self.cancelled_us.get(id, now_us) < intent.sent_us):
            self._checker.violation("U2", f"{id} had ended, and still holds {intent.unique!r}")

    # -- limits ---------------------------------------------------------------------------------

    def look(self, counters: Mapping[str, Mapping[str, int]]) -> None:
        """Judge what is in the queues now."""
        for queue, counter in counters.items():
            standing = self._standing.get(queue)
            most = standing.settings.get("max_messages", 0) if standing is not None else 0
            count = sum(counter[state] for state in ("ready", "delayed", "held", "begun"))
            if not most:
                self._within.discard(queue)
            elif count <= most:
                self._within.add(queue)
            elif queue in self._within:
                self._checker.violation("L1", f"{queue} has {count} messages, of {most}")

    def count_dropped(self, counters: Mapping[str, Mapping[str, int]]) -> None:
        """A life of the broker ends, or the world."""
        self._within.clear()  # what made a queue short may not be safe, and be undone
        for queue, counter in counters.items():
            self._dropped[queue] += counter["overflow_dropped"]

    # -- the end --------------------------------------------------------------------------------

    def end(self, now_us: int) -> None:
        """The world has drained."""
        for text in self._ledger.shared:
            self._checker.violation("S1", text)
        handed = self._ledger.handed
        charged = () if self._checker.redriven else handed.judge(self._checker.spares)
        for law, text in (*handed.violations, *charged):
            self._checker.violation(law, text)
        self._now_us = now_us
        for step in self.steps:
            if step.is_there:  # all of it is
                for intent in step.intents:
                    intent.outcome = OK if intent.outcome == UNKNOWN else intent.outcome

    def may_have_ended(self, intent: Intent) -> bool:
        """Whether a law lets a message end that was confirmed."""
        if self._may_have_expired(intent):
            return True
        if intent.unique_mode in REPLACING and self._is_followed(intent):
            return True
        if any(
            step.work.history.intent is intent and self._may_be_done(step) for step in self.steps
        ):
            return True
        if intent.queue in self.drops_oldest:
            self._lost[intent.queue] += 1
            return True
        return False

    def _may_have_expired(self, intent: Intent) -> bool:
        over_us = intent.sent_us + intent.ttl_ms * 1_000 - SLACK_US
        drops = intent.ttl_ms and intent.queue in self._checker.drops_expired
        return bool(drops) and (self.jumped or over_us <= self._now_us)

    def _may_be_done(self, step: Step) -> bool:
        """Whether a step was done, or nothing is left that would tell: all that it published may have gone."""
        return step.is_there or all(
            each.outcome == UNKNOWN
            and (
                self._may_have_expired(each)
                or each.queue in self.drops_oldest
                or self._checker.may_be_removed(each)
            )
            for each in step.intents
        )

    def _is_followed(self, intent: Intent) -> bool:
        """Whether something was published under its unique key that may have replaced it."""
        return any(
            (other.queue, other.unique) == (intent.queue, intent.unique)
            for other in self._checker.intents.values()
            if other is not intent and other.outcome != REFUSED
        )

    def judge_the_end(self) -> None:
        """Judge what can be told only now."""
        for queue, count in self._lost.items():
            if count > self._dropped[queue]:
                text = (
                    f"{count} messages of {queue} are lost, and it dropped {self._dropped[queue]}"
                )
                self._checker.violation("L2", text)
        for (queue, dedupe), intents in self._deduped.items():
            ids = {intent.id for intent in intents}
            if len(ids) > 1 and not self.jumped and self.is_standing(queue):
                self._checker.violation("D1", f"{dedupe!r} was stored as {ids}")

        for (queue, key, _), times_us in self._counted.items():
            self._judge_rate(queue, key, times_us)
        for step in self.steps:
            if step.is_there:
                self._judge_step(step)
                for follower in step.followers:
                    self._judge_follower(follower)

    def _judge_rate(self, queue: str, key: bytes, times_us: list[int]) -> None:
        """Of a queue, or a key, let a bucket be full at first, and never lack more than comes in in a tick."""
        standing = self._standing.get(queue)
        name = "key_rate" if key else "rate"
        rate: int = standing.settings.get(name, 0) if standing is not None else 0
        if standing is None or not rate:
            return
        burst: int = standing.settings[f"{name}_burst"]
        left, before_us = float(burst), 0
        for us in sorted(times_us):
            left = min(burst, left + (us - before_us) * rate / 1e6) - 1
            before_us = us
            if left < -rate * EXPIRED_US / 1e6:
                text = (
                    f"{queue} {key!r} handed out {-left:.1f} more than {rate} a second let through"
                )
                self._checker.violation("V1", text)
                return

    def _judge_step(self, step: Step) -> None:
        """What it acked was over with it: nobody got that later, who could only have got it instead."""
        history = step.work.history
        for token in history.handed:
            if self._ledger.handed_us(token) > step.sent_us:
                text = f"{history.intent.id} was handed out, and a step that acked it was done"
                self._checker.violation("A1", text)

    def _judge_follower(self, follower: Follower) -> None:
        intent = follower.intent
        tokens = intent.history.handed if intent.history is not None else {}
        went = [token for token, each in tokens.items() if each.queue == intent.queue]
        if not went or self._checker.redriven:
            return
        went_us = self._ledger.handed_us(min(went))
        named = [self._checker.by_id[id] for id in follower.named]
        for other in (*named, *follower.before):
            handed = other.history.handed.values() if other.history is not None else ()
            if any(
                each.queue == other.queue and self._ledger.handed_us(each.token) > went_us
                for each in handed
            ):
                text = f"{other.id} was handed out after {intent.id}, which waits for its end"
                self._checker.violation("F1", text)

    # -- what is handed out -----------------------------------------------------------------------

    def delivered(self, history: History, handed: Handed, alive: Container[int]) -> None:
        """Judge what came to a client; `alive` are the links that had no trouble so far."""
        intent = history.intent
        us = self._ledger.handed_us(handed.token)
        assert intent.id is not None
        if us > self.cancelled_us.get(intent.id, us):
            self._checker.violation("C1", f"{intent.id} was handed out after it was cancelled")
        if handed.queue != intent.queue:
            return
        if self._checker.is_removed(intent, us):
            self._checker.violation("C1", f"{intent.id} was handed out after all were ended")
        if intent.unique_mode == "drop" and not self._checker.redriven:
            self._judge_unique(intent, us)
        standing = self._standing.get(intent.queue)
        if standing is None or intent.sent_us < standing.since_us:
            return
        self.judged += 1
        self._counted[intent.queue, b"", epoch_of(handed.token)].append(us)
        if intent.key:
            self._counted[intent.queue, intent.key, epoch_of(handed.token)].append(us)
        self._judge_pauses(intent, us)
        came = Delivered(intent.id, intent, history, handed, us, standing.settings)
        if intent.key and standing.settings.get("key_concurrency"):
            self._judge_key(came, alive)
        if (
            came.settings.get("max_wait_ms") == 0
        ):  # else an old one lets others of its priority go first, too
            self._judge_priority(came)
        if intent.ttl_ms:
            self._judge_lifetime(came)

    def _judge_pauses(self, intent: Intent, us: int) -> None:
        for key in {b"", intent.key} if self.pauses and not self.jumped else ():
            same = [each for each in self.pauses if (each.queue, each.key) == (intent.queue, key)]
            asked = [each for each in same if each.sent_us <= us]
            if asked and asked[-1].holds(us):
                text = f"{intent.id} was handed out while {key!r} of {intent.queue} was paused"
                self._checker.violation("Z1", text)

    def _judge_lifetime(self, came: Delivered) -> None:
        intent = came.intent
        # Down, time went by the wall clock: as of a publish in this life of the broker it is known exactly.
        is_known = intent.outcome == OK and intent.confirmed_crashes == self._checker.crashes
        over_us = came.us - intent.confirmed_us - intent.ttl_ms * 1_000
        if is_known and not self._checker.redriven and over_us > EXPIRED_US:
            text = f"{came.id} was handed out {over_us} us after its {intent.ttl_ms} ms"
            self._checker.violation("T1", text)

    def _judge_priority(self, came: Delivered) -> None:
        """Each first time that something is handed out, look what of less priority was since it was ready."""
        intent, handed = came.intent, came.handed
        fresh = self._fresh[intent.queue]
        was_ready = intent.outcome == OK and intent.confirmed_crashes == self._checker.crashes
        is_first = self._ledger.first[came.id] == handed.token
        is_first = is_first and not (_has_a_time(intent) or intent.key)
        if is_first and was_ready and not self._checker.redriven:
            for other in fresh:
                if (
                    other.intent.priority < intent.priority
                    and other.us > intent.confirmed_us
                    and epoch_of(other.handed.token) == epoch_of(handed.token)
                    and other.handed.token < handed.token
                ):
                    text = (
                        f"{other.id} was handed out before {came.id} of priority {intent.priority}"
                    )
                    self._checker.violation("P1", text)
        fresh.append(came)

    def _judge_unique(self, intent: Intent, us: int) -> None:
        assert intent.id is not None
        for other in self._unique[intent.queue, intent.unique]:
            assert other.id is not None
            if other.id > intent.id and us > other.confirmed_us:
                text = f"{intent.id} was handed out after {other.id} was stored beside it"
                self._checker.violation("U1", text)

    def _judge_key(self, came: Delivered, alive: Container[int]) -> None:
        others = self._of_key[came.intent.queue, came.intent.key]
        most: int = came.settings["key_concurrency"]
        busy = [other for other in others if self._is_busy(other, came, alive)]
        if len(busy) >= most:
            ids = [other.id for other in busy]
            self._checker.violation(
                "K1", f"{came.id} was handed out while {ids} of its key were in work"
            )
        if most == 1 and not self._checker.redriven:
            for other in self._out_of_order(came, others):
                self._checker.violation(
                    "K2",
                    f"of {came.intent.key!r}, {came.id} and {other.id} came in a wrong order",
                )
        others.append(came)

    def _is_busy(self, other: Delivered, came: Delivered, alive: Container[int]) -> bool:
        """Whether `other` was certainly in work with `came`: handed out with it, or begun, and under its lease."""
        work = other.handed
        if work.token == came.handed.token:
            return True
        if other.history is came.history or work.leased_us is None or work.ended or work.lost:
            return False
        if other.id in self._checker.cancels or self._checker.may_be_removed(other.intent):
            return False
        ends_us = work.leased_us + work.lease_ms * 1_000 - SLACK_US
        if other.intent.ttl_ms:
            # Its time may be over before the broker hears that it began: then it has ended, whoever works on it.
            ends_us = min(ends_us, other.intent.sent_us + other.intent.ttl_ms * 1_000 - SLACK_US)
        same_life = work.crashes == self._checker.crashes and work.link in alive
        return same_life and work.leased_us <= came.us < ends_us

    @staticmethod
    def _out_of_order(came: Delivered, others: list[Delivered]) -> Iterator[Delivered]:
        """Yield those of which the later one of the two was handed out while the other had not ended."""
        if _has_a_time(came.intent):
            return
        token = came.handed.token
        for other in others:
            same_life = epoch_of(other.handed.token) == epoch_of(token)
            same_line = other.intent.priority == came.intent.priority and same_life
            if other.intent is came.intent or not same_line or _has_a_time(other.intent):
                continue
            if (other.id > came.id) == (other.handed.token < token):
                yield other


def _has_a_time(intent: Intent) -> bool:
    """Whether a message took its place in line at another time than when it was published."""
    return bool(intent.delay_ms or intent.retimed or intent.unique_mode == "keep-latest")
