"""The judge of a history: what each client intended and was told, laid beside what was delivered.

Pure: it is told of events with their times and keeps books; it knows no broker, and no disk. A message is found
by its body, which is unlike any other. The invariants, I1 to I10, are those of the reliability plan:

I1 nothing confirmed is lost; I2 nothing is invented, and a frame sent twice is applied once; I3 bodies are equal;
I4 attempts grow, and a confirmed one is never forgotten; I5 at most one live lease, tokens never repeat;
I6 a stale settlement changes nothing; I7 what was acked and confirmed never comes again; I8 conservation;
I9 nothing comes early, and all comes in the end; I10 order of a publisher. I11 (limits) and I12 (recovery twice)
look at the broker itself, and are judged by the world.

A message that came again without need is a duplicate: counted, no violation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from dataclasses import dataclass, field

Id = tuple[int, int]
OK, REFUSED, UNKNOWN = "ok", "refused", "unknown"
ENDS = ("acked", "purged", "damaged", "cancelled", "overflow_dropped", "replaced")  # counters
ON_ITS_WAY_US = 100_000  # what a client did so long ago may not have arrived
SLACK_US = 1_000  # a millisecond: times are rounded to it on their way


@dataclass(slots=True, eq=False)
class Intent:
    """One message that a client wants published."""

    body: bytes
    client: str
    queue: str
    sent_us: int  # when its client had it; it was written then or later
    delay_ms: int
    plain: bool  # neither key nor delay: it has its place among the others
    key: bytes = b""
    priority: int = 0
    ttl_ms: int = 0
    unique: bytes = b""
    unique_mode: str = ""
    dedupe: bytes = b""
    # Of the same message in other queues, where an exchange led it: all of them are stored, or none.
    siblings: tuple[Intent, ...] | None = None
    retimed: bool = False  # somebody asked for another time: when it comes says nothing
    outcome: str = UNKNOWN
    confirmed_us: int = 0
    confirmed_crashes: int = (
        0  # of the broker, until it was sent and confirmed; -1: one was between
    )
    id: Id | None = None
    history: History | None = None


@dataclass(slots=True, eq=False)
class Handed:
    """One message as one delivery handed it to one client."""

    client: str
    link: int
    queue: str
    token: int
    attempt: int
    lease_ms: int
    received_us: int
    crashes: int  # of the broker, so far
    leased_us: int | None = None  # when the newest begin or extend left
    ended: str = ""  # the settlement that its client made
    ended_us: int = 0
    answered: bool = False
    lost: bool = False


@dataclass(slots=True, eq=False)
class History:
    """What is known of one stored message."""

    intent: Intent
    handed: dict[int, Handed] = field(default_factory=dict)  # by token
    acked_token: int = 0  # confirmed
    acked_epoch: int = 0  # of the broker, when its client heard of it
    acked_us: int = 0  # then
    least_attempts: int = 0  # confirmed ones
    return_us: int = 0  # not before this; see return_token
    return_token: int = 0
    return_crashes: int = 0
    drained: bool = False


@dataclass(slots=True)
class Removal:
    """A purge or a deletion of a queue, and its dead letters; or a cancel of all messages of a `key`."""

    queue: str
    sent_us: int
    key: bytes = b""
    done_us: int | None = None  # None: nobody knows whether, and when
    failed: bool = False


class Checker:
    """Books and violations of one world."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.intents: dict[bytes, Intent] = {}
        self.by_id: dict[Id, Intent] = {}
        self.home_of: Callable[[int], str | None] = lambda origin: None  # the queue with a number
        self.removals: list[Removal] = []
        self.cancels: dict[Id, bool] = {}  # asked for; True: it is known that they ended by that
        self.owner_of_token: dict[int, tuple[str, int]] = {}
        self.max_attempts = 5
        self.crashes = 0
        # What a client got and never told of, for it died, or never got, may have been charged to its lease.
        self.deaths = self.troubles = 0
        self.epoch = 0  # of the broker that runs
        self.started_us = self.crashed_us = 0  # since when, and when the one before it ended
        self.redriven = False  # attempts start anew, and the dead rise: some checks are void
        self.calm = True  # nothing has come back so far: order can be judged
        self.newest: dict[tuple[str, str, str], Id] = {}
        self.confirmed = self.duplicates = self.stale = 0
        self.drops_expired: set[str] = set()  # queues
        self.spares: set[str] = (
            set()
        )  # queues with a circuit: while that is open, what fails is charged to nobody

    def violation(self, invariant: str, text: str) -> None:
        """Note one."""
        self.violations.append(f"{invariant}: {text}")

    # -- publishing -----------------------------------------------------------------------------

    def intend(self, intent: Intent) -> None:
        """A client is about to publish."""
        name = intent.body if intent.siblings is None else _routed(intent.body, intent.queue)
        assert name not in self.intents, "bodies are unlike each other"
        self.intents[name] = intent

    def stored(self, intent: Intent, id: Id, now_us: int) -> None:
        """The confirm came: the message is safe under this id."""
        intent.outcome, intent.confirmed_us = OK, now_us
        # A confirm that was on its way at the end of a life says nothing of the next one.
        intent.confirmed_crashes = self.crashes if intent.sent_us > self.crashed_us else -1
        self.confirmed += 1
        self._identify(intent, id)

    def refused(self, intent: Intent) -> None:
        """The server said that it stored nothing."""
        intent.outcome = REFUSED
        if intent.history is not None:
            self.violation("I2", f"{intent.body!r} was refused, and stored all the same")

    def _identify(self, intent: Intent, id: Id) -> None:
        other = self.by_id.setdefault(id, intent)
        if other is not intent:
            self.violation("I2", f"id {id} names both {other.body!r} and {intent.body!r}")
        if intent.id not in (None, id):
            self.violation("I2", f"{intent.body!r} is stored twice, as {intent.id} and {id}")
        intent.id = id

    def returned(self) -> None:
        """What was held somewhere goes back to its queue, and may come after what stood behind it."""
        self.calm = False

    # -- delivering -----------------------------------------------------------------------------

    def delivered(self, handed: Handed, id: Id, body: bytes, now_us: int) -> History | None:
        """A message came; returns its history."""
        intent = self.intents.get(body)
        if intent is None:  # it may have been moved since
            home = self.home_of(id[0]) or handed.queue
            intent = self.intents.get(_routed(body, home))
        if intent is None:
            self.violation("I3" if id in self.by_id else "I2", f"{id} has an unknown body")
            return None
        if intent.outcome == REFUSED:
            self.violation("I2", f"{body!r} was refused, and delivered as {id}")
        self._identify(intent, id)
        for sibling in intent.siblings or ():
            if sibling.outcome == REFUSED and not self.may_be_removed(sibling):
                self.violation("X1", f"{body!r} is in {intent.queue}, and not in {sibling.queue}")
            elif sibling.outcome == UNKNOWN:
                sibling.outcome, sibling.confirmed_us = OK, now_us
        history = intent.history
        if history is None:
            history = intent.history = History(intent)
        self._check_token(handed, history)
        self._check_attempt(handed, history)
        self._check_time(handed, history, now_us)
        self._check_order(handed, history, id)
        if history.handed:
            self.duplicates += any(old.leased_us is not None for old in history.handed.values())
        history.handed[handed.token] = handed
        return history

    def _check_token(self, handed: Handed, history: History) -> None:
        owner = (handed.client, handed.link)
        if self.owner_of_token.setdefault(handed.token, owner) != owner:
            self.violation("I5", f"token {handed.token} was given to two connections")
        if handed.token in history.handed:
            self.violation("I5", f"{history.intent.body!r} came twice under {handed.token}")
        if handed.token > history.acked_token > 0 and epoch_of(handed.token) >= history.acked_epoch:
            self.violation(
                "I7", f"{history.intent.id} came under {handed.token} after its ack was confirmed"
            )

    def _check_attempt(self, handed: Handed, history: History) -> None:
        if self.redriven or handed.queue.endswith(".dlq"):
            return
        if handed.attempt > self.max_attempts:
            self.violation("I4", f"{history.intent.id} came for attempt {handed.attempt}")
        begun = sum(old.leased_us is not None for old in history.handed.values())
        # A short lease can end while the answer that it runs for waits for a slow sync.
        calm = not (self.crashes or self.deaths or self.troubles) and handed.lease_ms >= 5_000
        if calm and handed.attempt > begun + 1:
            self.violation(
                "I4", f"{history.intent.id} came for attempt {handed.attempt}, {begun} were begun"
            )
        newest = max(history.handed, default=0)
        if handed.token > newest and handed.attempt <= history.least_attempts:
            self.violation(
                "I4",
                f"{history.intent.id} came for attempt {handed.attempt}, "
                f"{history.least_attempts} were confirmed",
            )
        old = history.handed.get(newest)
        if (
            old is not None
            and handed.token > newest
            and old.crashes == self.crashes
            and handed.attempt < old.attempt
        ):
            self.violation(
                "I4", f"attempts of {history.intent.id}: {old.attempt}, then {handed.attempt}"
            )

    def _check_time(self, handed: Handed, history: History, now_us: int) -> None:
        intent = history.intent
        if self.redriven or intent.retimed or handed.queue != intent.queue:
            return
        if intent.unique_mode == "keep-latest":
            return  # it has the time of what it replaced
        if not self.crashes and now_us < intent.sent_us + intent.delay_ms * 1_000 - SLACK_US:
            self.violation("I9", f"{intent.id} came before its delay of {intent.delay_ms} ms")
        if (
            handed.token > history.return_token
            and history.return_crashes == self.crashes
            and now_us < history.return_us - SLACK_US
        ):
            self.violation("I9", f"{intent.id} came {history.return_us - now_us} us early")

    def early(self, history: History, handed: Handed, alive: set[int], now_us: int) -> None:
        """Judge whether another client's lease was still running when this one came; see I5.

        `alive` are the links that had no trouble so far.
        """
        for old in history.handed.values():
            if old.token >= handed.token or old.leased_us is None or old.ended or old.lost:
                continue
            if self._may_have_expired(history.intent, old, handed):
                continue
            if old.link in alive and old.crashes == self.crashes:
                ends_us = old.leased_us + old.lease_ms * 1_000 - SLACK_US
                if now_us < ends_us:
                    self.violation(
                        "I5",
                        f"{history.intent.id} came to {handed.client} {ends_us - now_us} us "
                        f"before the lease of {old.client} could end",
                    )

    def _may_have_expired(self, intent: Intent, old: Handed, handed: Handed) -> bool:
        """Whether it may have died of its time to live before its begin arrived: until then it is nobody's work.

        After a start the time goes by the wall clock.
        """
        if not intent.ttl_ms or handed.queue == old.queue or old.leased_us is None:
            return False
        over_us = intent.sent_us + intent.ttl_ms * 1_000
        return self.crashes > 0 or old.leased_us > over_us - ON_ITS_WAY_US

    def taken_over(
        self, history: History, handed: Handed, kept: Container[int], wait_us: int, now_us: int
    ) -> None:
        """Judge whether this was somebody else's when the broker died, who may still come back for it; see I5.

        `kept` are the links that had no trouble before and whose clients live; the broker waits for `wait_us`.
        """
        since_us = self.started_us
        for old in history.handed.values():
            if old.token >= handed.token or old.leased_us is None or old.lost:
                continue
            if self._may_have_expired(history.intent, old, handed):
                continue
            if old.leased_us + old.lease_ms * 1_000 - SLACK_US <= self.crashed_us:
                continue  # it had ended, and its attempt with it
            # An ack that was made later waits for the way back; before, it may be one of the confirmed.
            if old.ended and (old.ended != "ack" or old.ended_us < self.crashed_us):
                continue
            if (
                old.link not in kept
                or old.crashes != self.crashes - 1
                or old.client == handed.client
            ):
                continue
            ends_us = since_us + min(wait_us, old.lease_ms * 1_000) - SLACK_US
            if now_us < ends_us and not (self.redriven or history.intent.retimed):
                self.violation(
                    "I5",
                    f"{history.intent.id} came to {handed.client} {now_us - since_us} us after the start, and "
                    f"{old.client} had begun it before the crash",
                )

    def _check_order(self, handed: Handed, history: History, id: Id) -> None:
        intent = history.intent
        if not (self.calm and intent.plain and handed.queue == intent.queue):
            return
        place = (handed.client, handed.queue, intent.client)
        if self.newest.get(place, (0, -1)) > id and not history.handed:
            self.violation("I10", f"{id} came after {self.newest[place]}")
        self.newest[place] = max(id, self.newest.get(place, id))

    # -- settling -------------------------------------------------------------------------------

    def ending(self, history: History, handed: Handed, op: str, now_us: int) -> None:
        """A client settles a message; the answer is to come."""
        handed.ended, handed.ended_us = op, now_us
        if op not in ("ack", "step"):
            self.returned()

    def settled(
        self, history: History, handed: Handed, lost: bool, delay_ms: int | None, now_us: int
    ) -> None:
        """The answer to a settlement came."""
        if handed.answered:
            return
        handed.answered = True
        if lost:
            handed.lost = True
            return
        # An answer may be late: what was settled before the message was handed out again counts as well.
        if history.acked_token and (handed.token > history.acked_token or handed.ended == "ack"):
            self.violation(
                "I5", f"{history.intent.id}: {handed.ended} under {handed.token} counts beside "
                f"the ack under {history.acked_token}",
            )  # fmt: skip
        if handed.ended == "ack":
            history.acked_token, history.acked_epoch = handed.token, self.epoch
            history.acked_us = now_us
            # What was held in an earlier life of the broker left no record: an older token counts again.
            later = [
                token
                for token in history.handed
                if token > handed.token and epoch_of(token) == self.epoch
            ]
            if later:
                self.violation("I5", f"{history.intent.id} was acked after {later} had it")
        elif handed.ended == "nack" and history.intent.queue not in self.spares:
            history.least_attempts = max(history.least_attempts, handed.attempt)
        if handed.ended == "nack" and delay_ms:
            history.return_us = handed.ended_us + delay_ms * 1_000
            history.return_token, history.return_crashes = handed.token, handed.crashes

    def stale_answer(self, history: History, token: int, lost: bool) -> None:
        """A settlement under a token whose own was answered long ago must be lost."""
        self.stale += 1
        if not lost:
            self.violation("I6", f"{history.intent.id}: a second settlement of {token} counted")

    # -- the end --------------------------------------------------------------------------------

    def finish(
        self, may_have_ended: Callable[[Intent], bool], suspects: Collection[Id] = ()
    ) -> None:
        """After the drain: everything that was confirmed is accounted for.

        `may_have_ended` is asked of what was neither seen at the end nor acked, `suspects` have a record that the
        disk did not give back as it was written.
        """
        for intent in self.intents.values():
            history = intent.history
            if intent.outcome != OK or (history is not None and history.drained):
                continue
            if history is not None and (history.acked_token or _may_be_acked(history)):
                continue
            if intent.id in self.cancels or self.may_be_removed(intent):
                continue
            if self._is_suspect(intent, suspects):
                continue
            if not may_have_ended(intent):
                self.violation("I1", f"{intent.id} of {intent.queue} was confirmed, and is lost")

    def _is_suspect(self, intent: Intent, suspects: Collection[Id]) -> bool:
        """Whether its record may be one of those.

        What others of its step or route tell of has an id that nobody heard: it may be each that nobody knows.
        """
        if intent.id is not None:
            return intent.id in suspects
        unknown = [id for id in suspects if id not in self.by_id]
        return any(self.home_of(id[0]) == intent.queue for id in unknown)

    def drained(self, history: History, handed: Handed, *, fresh: bool) -> None:
        """The message was there at the end; nothing that was ended for certain may be.

        `fresh`: to a client that came for the drain; what others get may have been long on its way, which an ack
        under a newer token tells.
        """
        history.drained = True
        if history.acked_token and (fresh or handed.token >= history.acked_token):
            self.violation("I7", f"{history.intent.id} is there at the end, and was acked")
        if fresh and self.cancels.get(history.intent.id or (0, 0)):
            self.violation("I7", f"{history.intent.id} is there at the end, and was cancelled")
        if fresh and self.is_removed(history.intent) and not handed.queue.endswith(".dlq"):
            self.violation("I7", f"{history.intent.id} is there at the end, and was purged")

    def may_be_removed(self, intent: Intent) -> bool:
        """Whether somebody asked for the end of messages of which this may have been one."""
        return any(
            removal.queue.removesuffix(".dlq") == intent.queue
            and removal.key in (b"", intent.key)
            and not removal.failed
            and (removal.done_us is None or removal.done_us >= intent.sent_us)
            for removal in self.removals
        )

    def is_removed(self, intent: Intent, by_us: int | None = None) -> bool:
        """Whether somebody ended this for certain, with others; at the latest at `by_us` if that is given."""
        return not self.redriven and any(
            removal.queue == intent.queue
            and removal.key in (b"", intent.key)
            and removal.done_us is not None
            and (by_us is None or removal.done_us < by_us)
            and not removal.failed
            and intent.outcome == OK
            and intent.confirmed_us < removal.sent_us
            for removal in self.removals
        )

    def balance(self, before: dict[str, int], counters: dict[str, dict[str, int]]) -> None:
        """I8: of each queue, what came in has ended, has moved on, or is there. See `sides`."""
        for queue, counter in counters.items():
            if (gap := self.sides(queue, counters) - before.get(queue, 0)) != 0:
                self.violation("I8", f"{queue} has {gap} messages too many: {counter}")

    def sides(self, queue: str, counters: dict[str, dict[str, int]]) -> int:
        """Return what is in the queue less what its counters say has come in since the start."""
        counter = counters[queue]
        there = sum(counter[state] for state in ("ready", "delayed", "held", "begun"))
        came = counter["published"] - sum(counter[end] for end in ENDS)
        if queue in self.drops_expired:
            came -= counter["ttl_expired"]
        if queue.endswith(".dlq"):
            source = counters.get(queue.removesuffix(".dlq"))
            came += (source["dead_lettered"] if source else 0) - counter["redriven"]
        else:
            dlq = counters.get(f"{queue}.dlq")
            came += (dlq["redriven"] if dlq else 0) - counter["dead_lettered"]
        return there - came


def _routed(body: bytes, queue: str) -> bytes:
    """Return the name of what an exchange led to a queue: it has the same body in others."""
    return body + b"@" + queue.removesuffix(".dlq").encode()


def epoch_of(token: int) -> int:
    """Return the life of the broker in which a token was given away."""
    return token >> 40


def _may_be_acked(history: History) -> bool:
    return any(old.ended == "ack" and not old.answered for old in history.handed.values())
