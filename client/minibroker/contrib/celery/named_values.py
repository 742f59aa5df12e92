"""Values under names, in a queue that nobody consumes: what Celery keeps of tasks and groups.

The name is the unique key of a message, its time to live that of the value, and a new value replaces it. A look at
a name is a publish of a placeholder that is dropped where something stands: its confirm says what that is. So many
names are looked at in two exchanges with the server, and whoever waits for one waits for the end of what he found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Final, NamedTuple

from minibroker.contract.confirms import Confirm, MessageId
from minibroker.contract.limits import MAX_KEY_BYTES
from minibroker.session.spans import Span
from minibroker.sync.broker import Broker

PLACEHOLDER: Final = b""
AWAITED: Final = timedelta(hours=1)  # a placeholder for which somebody waits
LOOKED_AT: Final = timedelta(seconds=30)  # one that only tells that nothing is there
ENDS_KEPT_MS: Final = (
    10_000  # of what a name stood for: longer than between a look and what is asked then
)
STORE_S: Final = (
    7 * 86_400.0
)  # a worker waits for a broker that is away: its next task is there, too
MOST: Final = 500  # names of one look
TRIES: Final = 5  # of taking away what is replaced meanwhile


class Found(NamedTuple):
    """What stands under a name: a message, and its value; None: it is a placeholder."""

    id: MessageId
    value: bytes | None


class NamedValues:
    """The values of one queue."""

    def __init__(self, broker: Broker, queue_name: str, durability: str) -> None:
        # Who asks for the end of what was replaced a moment ago is told at once; nothing of that is written.
        self.queue = broker.queue(
            queue_name, durability=durability, result_ms=ENDS_KEPT_MS, results_in="memory"
        )

    def put(self, name: str, value: bytes, kept: Span | None) -> None:
        """Keep a value in the place of what is there; TooLarge, or what else a publish raises."""
        self.queue.publish(
            value, unique_key=key_of(name), unique="replace", ttl=kept, timeout=STORE_S
        )

    def put_first(self, name: str, value: bytes, kept: Span | None) -> Found | None:
        """Keep a value if nothing is there; else return what is."""
        confirm = self.queue.publish(value, unique_key=key_of(name), ttl=kept, timeout=STORE_S)
        if not confirm.duplicate:
            return None
        return self._seen([confirm], None).get(confirm.id, Found(confirm.id, None))

    def get(self, name: str) -> bytes | None:
        """Return the value of a name; None: there is none."""
        return self.get_many([name]).get(name)

    def get_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the values of those names that have one."""
        found: dict[str, bytes] = {}
        for first in range(0, len(names), MOST):
            some = names[first : first + MOST]
            left = dict.fromkeys(some)
            for _ in range(
                TRIES
            ):  # one that was replaced between two questions is looked for again
                seen = self.look(list(left), LOOKED_AT)
                found |= {name: each.value for name, each in seen.items() if each.value is not None}
                left = {name: None for name in left if name not in seen}
                if not left:
                    break
        return found

    def look(
        self, names: Sequence[str], kept: Span, within_s: float | None = None
    ) -> Mapping[str, Found]:
        """Return what stands under each name, at most 500 of them: a placeholder now where nothing did.

        A name that is missing in the answer was given another message meanwhile: look again.
        """
        confirms = self.queue.publish_many(
            [PLACEHOLDER] * len(names),
            unique_keys=[key_of(name) for name in names],
            ttl=kept,
            timeout=within_s,
        )
        seen = self._seen([each for each in confirms if each.duplicate], within_s)
        found = {}
        for name, confirm in zip(names, confirms, strict=True):
            if not confirm.duplicate:
                found[name] = Found(confirm.id, None)
            elif confirm.id in seen:
                found[name] = seen[confirm.id]
        return found

    def forget(self, name: str) -> None:
        """Let nothing be under a name."""
        for _ in range(TRIES):
            confirm = self.queue.publish(PLACEHOLDER, unique_key=key_of(name), ttl=LOOKED_AT)
            if not confirm.duplicate or self.queue.purge([confirm.id]):
                return

    def _seen(self, confirms: Sequence[Confirm], within_s: float | None) -> dict[MessageId, Found]:
        ids = [confirm.id for confirm in confirms]
        found: dict[MessageId, Found] = {}
        after = b""
        while ids:
            page = self.queue.peek(len(ids), ids=ids, after=after, timeout=within_s)
            found |= {each.id: Found(each.id, each.raw or None) for each in page}
            after = page.next
            if not after:
                break
        return found


def key_of(name: str) -> str:
    """Return the unique key of a name: itself, or what stands for it where it is too long for one."""
    raw = name.encode(errors="surrogatepass")
    return name if len(raw) <= MAX_KEY_BYTES else f"sha256-{sha256(raw).hexdigest()}"
