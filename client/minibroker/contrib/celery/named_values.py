"""Values under names, in a queue that nobody consumes: what Celery keeps of tasks and groups.

The name is the unique key of a message, its time to live that of the value, and a new value replaces it. Who waits
for a name publishes a placeholder, which is dropped where something stands: the confirm says what that is. So many
names are looked at in two exchanges with the server, and whoever waits does so for the end of what he found. Who
only looks leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Final, NamedTuple

from minibroker.contract.confirms import MessageId
from minibroker.contract.errors import UnknownQueue
from minibroker.contract.limits import MAX_KEY_BYTES
from minibroker.session.spans import Span
from minibroker.sync.broker import Broker

PLACEHOLDER: Final = b""
AWAITED: Final = timedelta(hours=1)  # a placeholder for which somebody waits
# Of what a name stood for: longer than between a look and what is asked then.
ENDS_KEPT_MS: Final = 10_000
# A worker waits for a broker that is away: its next task is there, too.
STORE_S: Final = 7 * 86_400.0
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
        return self._peek(name) or Found(confirm.id, None)

    def get(self, name: str) -> bytes | None:
        """Return the value of a name; None: there is none."""
        found = self._peek(name)
        return found.value if found is not None else None

    def _peek(self, name: str) -> Found | None:
        try:
            for each in self.queue.peek(1, unique_key=key_of(name)):
                return Found(each.id, each.raw or None)
        except UnknownQueue:  # nothing has ever been kept
            pass
        return None

    def look(self, names: Sequence[str], within_s: float) -> Mapping[str, Found]:
        """Return what stands under each name, at most 500 of them: a placeholder now where nothing did.

        A name that is missing in the answer was given another message meanwhile: look again.
        """
        confirms = self.queue.publish_many(
            [PLACEHOLDER] * len(names),
            unique_keys=[key_of(name) for name in names],
            ttl=AWAITED,
            timeout=within_s,
        )
        seen = self.at([each.id for each in confirms if each.duplicate], within_s)
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
            found = self._peek(name)
            if found is None or self.queue.purge([found.id]):
                return

    def at(self, ids: Sequence[MessageId], within_s: float | None = None) -> dict[MessageId, Found]:
        """Return what is in the messages with these ids, as far as they are there."""
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
