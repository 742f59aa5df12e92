"""The rows of `make bench`: what each one measures, with all its parameters, and what it must reach."""

from __future__ import annotations

from dataclasses import dataclass

BODY_BYTES = 100


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `messages` is the number in each repetition; `target` is in messages a second.

    `calls` are calls that wait for their confirm at the same time, `batch` the messages of one call.
    A row with a `prefetch` consumes; else it publishes. `max_ratio` bounds p50 / S of one call. Of so many `keys`
    one message each takes its turn; `settings` are those of the queue.
    """

    name: str
    title: str
    messages: int
    calls: int = 1
    batch: int = 1
    prefetch: int = 0
    target: int = 0
    max_ratio: float = 0.0
    durability: str = "sync"
    keys: int = 0
    settings: tuple[tuple[str, int], ...] = ()

    @property
    def frame(self) -> str:
        """The messages of a frame; single calls of one turn are put together by the client."""
        if self.prefetch:
            return f"<={min(self.prefetch, 1_000)}"
        return "<=500" if self.batch == 1 and self.calls > 1 else str(self.batch)

    @property
    def record_messages(self) -> int:
        """The messages of a typical record, for a sync gauge of the same size."""
        return 1 if self.prefetch else max(self.batch, min(self.calls, 500))


ROWS = (
    Row("single-1000", "single publishes, 1,000 tasks", 400_000, calls=1_000, target=300_000),
    Row("many-20", "publish_many of 100, 20 in flight", 1_000_000, 20, 100, target=1_000_000),
    Row("many-1", "publish_many of 100, one by one", 200_000, 1, 100, target=200_000),
    Row("consume-1", "consume, process(), one ack each", 20_000, prefetch=1),
    Row("consume-32", "consume, process(), one ack each", 150_000, prefetch=32, target=150_000),
    Row(
        "consume-1000", "consume, process(), one ack each", 300_000, prefetch=1_000, target=300_000
    ),
    # The same with keys. No rate is used up: what it costs to ask, not to wait.
    Row("keys-32", "consume, 1,000 keys", 30_000, prefetch=32, keys=1_000),
    Row(
        "ordered-32",
        "consume, 1,000 keys, in order",
        30_000,
        prefetch=32,
        keys=1_000,
        settings=(("key_concurrency", 1),),
    ),
    Row(
        "rated-32",
        "consume, 1,000 keys, a rate each",
        30_000,
        prefetch=32,
        keys=1_000,
        settings=(("key_rate", 1_000_000), ("key_rate_burst", 1_000_000)),
    ),
    Row("latency", "one publish at a time", 2_000, max_ratio=2.0),
)
