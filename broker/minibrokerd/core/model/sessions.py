"""Sessions: who talks, over which connections, and what was answered to its sequenced frames.

The frame window makes a resent frame harmless: the outcome of each frame that the client may still ask about
is kept, and the same sequence gets the same answer.
"""

from __future__ import annotations

from itertools import takewhile

from minibroker.contract import limits
from minibrokerd.core.model.deliveries import Consumer, Delivery
from minibrokerd.core.model.effects import Outgoing
from minibrokerd.core.model.footprints import OUTCOME_OBJECT_BYTES
from minibrokerd.core.model.inputs import Scope
from minibrokerd.core.model.records import FrameMeta
from minibrokerd.core.model.results import Asked
from minibrokerd.core.model.wheel import Timer

Result = dict[str, int | str]


class Outcome:
    """What was answered to one sequenced frame: one result for each part, and the runs that were lost."""

    __slots__ = ("batch", "checksum", "lost", "recorded", "results", "size", "weight")

    def __init__(
        self,
        checksum: int,
        size: int,
        results: list[Result],
        lost: bytes,
        batch: int,
        recorded: int,
    ) -> None:
        self.checksum = checksum
        self.size = size  # of the frame, in bytes
        self.results = results
        self.lost = lost
        self.batch = batch  # the answer rests on it
        self.recorded = recorded  # the batch that has its record; 0: none has
        # What it counts among others: what was routed names the queues, up to a thousand, with a run for each.
        self.weight = 1
        if lost:
            names_bytes = sum(len(str(each.get("queues", ""))) for each in results)
            self.weight += (len(lost) + names_bytes) // OUTCOME_OBJECT_BYTES


class Session:
    """One client process's session; it outlives its connections for a while."""

    __slots__ = (
        "acked",
        "answered_below",
        "attached",
        "back_batch",
        "blank",
        "client",
        "connection",
        "delivered",
        "deliveries",
        "id",
        "published",
        "received",
        "seen_ms",
        "seen_unix_ms",
        "stands",
        "taken",
        "takes_all",
        "timer",
        "took",
        "unanswered_bytes",
        "version",
        "window",
    )

    def __init__(self, id: int, client: str) -> None:
        self.id = id
        self.client = client
        self.version = ""  # of the client, if it says one
        self.connection: int | None = None
        self.attached: set[int] = set()
        self.deliveries: set[int] = set()  # tokens
        # Messages, since the server runs: stored for it, handed to it, ended by it as done.
        self.published = self.delivered = self.acked = 0
        self.received: dict[int, int] = {}  # by request: the token of an answer it may not have
        self.back_batch = 0  # the newest that has an answer of it as ended
        self.window: dict[int, Outcome] = {}
        self.stands = -1  # the batch under which its outcomes are noted; -1: they are not
        # Queues that it took from, as the log has them: by number the batch with which that is safe; and the batch
        # of the entry that stands for all queues, once there is one.
        self.taken: dict[int, int] = {}
        self.takes_all: int | None = None
        self.took: tuple[int, ...] = ()  # the numbers of these, when its last connection had ended
        self.answered_below = 1
        self.unanswered_bytes = 0
        self.seen_ms = 0  # log time of its newest frame outcome
        self.seen_unix_ms = 0  # its wall time, as a replay finds it
        self.timer: Timer | None = None  # its end, while it has no connection
        self.blank = False  # it was made for an id that is not known here, and not resumed yet

    @property
    def connected(self) -> bool:
        """Whether any connection of the session is open."""
        return self.connection is not None or bool(self.attached)

    def note_answer(self, request: int, delivery: Delivery) -> None:
        """Note that a receive was answered with a delivery: it may be asked again, or withdrawn."""
        delivery.request = request
        self.received[request] = delivery.token

    def has_answer(self, delivery: Delivery) -> None:
        """Note that the client has a delivery: its request can no longer be asked again."""
        request, delivery.request = delivery.request, None
        if request is not None and self.received.get(request) == delivery.token:
            del self.received[request]

    def forget_delivery(self, delivery: Delivery, batch: int) -> None:
        """Take a delivery that has ended from what the session holds; `batch` has the record of that.

        An answer that its client may not have is begun again if a crash loses that record: whoever withdraws it
        is told that it is gone when the record is safe.
        """
        if delivery.request is not None:
            self.back_batch = max(self.back_batch, batch)
        self.deliveries.discard(delivery.token)
        self.has_answer(delivery)

    def remember(self, sequence: int, outcome: Outcome) -> None:
        """Keep the outcome of a frame until the client says that it has the answer."""
        self.window[sequence] = outcome
        self.unanswered_bytes += outcome.size

    def forget_below(self, sequence: int) -> int:
        """Forget the outcomes that the client will not ask about any more; return what they count."""
        if sequence <= self.answered_below:
            return 0
        self.answered_below = sequence
        # Frames mostly come in the order of their sequences, so this stops at the first that stays.
        forgotten = [*takewhile(sequence.__gt__, self.window)]
        weight = 0
        for known in forgotten:
            outcome = self.window.pop(known)
            self.unanswered_bytes -= outcome.size
            weight += outcome.weight
        return weight

    def forget_all(self) -> int:
        """Forget every outcome: a frame that comes again can no longer be judged; return what they count."""
        return self.forget_below(max(self.window, default=0) + 1)

    @property
    def is_worth_keeping(self) -> bool:
        """Whether there is anything to know of it while it has no connection."""
        return bool(self.window or self.deliveries)

    def record_of(self, sequence: int, unix_ms: int) -> FrameMeta:
        """Return the record of an outcome that is kept; its tail is `lost`."""
        outcome = self.window[sequence]
        return FrameMeta(
            self.id,
            sequence,
            self.answered_below,
            outcome.checksum,
            unix_ms,
            outcome.size,
            outcome.results,
        )

    def put_in_order(self) -> None:
        """Sort the outcomes, after a replay: copies of old ones stand behind newer ones in the log."""
        self.window = {
            sequence: self.window[sequence]
            for sequence in sorted(self.window)
            if sequence >= self.answered_below
        }
        self.unanswered_bytes = sum(outcome.size for outcome in self.window.values())

    def over_limit(self, sequence: int) -> bool:
        """Whether a frame of this sequence is more than a client may have unanswered."""
        return (
            sequence - self.answered_below >= limits.MAX_UNANSWERED_FRAMES
            or self.unanswered_bytes > limits.MAX_UNANSWERED_BYTES + limits.MAX_FRAME_BYTES
        )


class Connection:
    """One connection of a session: the main one, with its consumers, or the attached one."""

    __slots__ = (
        "asked",
        "confirm",
        "confirmed",
        "confirms_many",
        "consumers",
        "id",
        "main",
        "opened",
        "paused",
        "recalls",
        "receives",
        "resting",
        "room",
        "scope",
        "session",
        "silent",
        "tokens",
        "waits",
        "walks",
    )

    def __init__(self, id: int, session: Session, *, main: bool) -> None:
        self.id = id
        self.session = session
        self.main = main
        self.scope: Scope | None = None  # the queues that it may touch; None: all
        self.consumers: dict[int, Consumer] = {}
        self.receives: dict[int, Consumer] = {}  # waiting receives, by request number
        self.asked: dict[int, Asked] = {}  # requests for results that wait, by number
        self.opened: dict[int, Consumer] = {}  # consumers, by the request number that made them
        self.tokens: set[int] = set()  # deliveries of which it holds something unbegun
        self.paused = False  # its peer does not read: nothing is delivered to it
        # Its client's loop stands still: the attached connection gave its buffer back.
        self.silent = False
        self.recalls = False  # its client gives back what it is asked for
        self.confirms_many = False  # its client knows an answer to several frames
        # The answer to settlements that was given last, which others of the same batch may share; and up to which.
        self.confirm: Outgoing | None = None
        self.confirmed = 0
        self.resting = False  # its client is paused
        # Whose handler waits, as its client has said. Whatever comes for another consumer ends that, too: its
        # handler may hold up the loop in which this one waits.
        self.waits: Consumer | None = None
        self.walks = 0  # requests of it that are being worked on, in steps
        self.room = limits.OUTPUT_SOFT_BYTES  # what it may get before the shell has a turn to write

    @property
    def stopped(self) -> bool:
        """Whether nothing may be delivered to it now."""
        return self.paused or self.silent or self.resting or self.room <= 0
