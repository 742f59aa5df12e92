"""What rows of the command table share: fields that several commands have, and the columns of their frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from minibroker.contract import limits
from minibroker.contract.rows import REQUIRED, Column, Field, Kind


def whole(name: str, high: int, meaning: str, unit: str = "", default: object = REQUIRED) -> Field:
    """Return a field that is an integer from 0 to `high`."""
    return Field(name, Kind.INT, default, high, unit, meaning)


def text(name: str, most_bytes: int, meaning: str, default: object = "") -> Field:
    """Return a field that is a text of at most `most_bytes`."""
    return Field(name, Kind.STR, default, most_bytes, "bytes", meaning)


QUEUE_BYTES: Final = limits.MAX_QUEUE_NAME_CHARS + len(limits.DLQ_SUFFIX)  # of a DLQ's name, too
QUEUE = text("queue", QUEUE_BYTES, "Queue name.", REQUIRED)
RUNS = whole("runs", limits.MAX_RUNS_PER_FRAME, "Number of entries in the run column.", "entries")
IDS = whole(
    "runs",
    limits.MAX_RUNS_PER_FRAME,
    "Number of entries in the run column; only these messages (token 0). 0: all.",
    "entries",
    default=0,
)
PROTOCOL = whole("protocol", 2**16 - 1, "Protocol version; this document describes 1.")
CLIENT = text("client", limits.MAX_CLIENT_NAME_BYTES, "Name of the client in logs and histories.")
SESSION = whole("session", 2**64 - 1, "Session id from welcome.")
SECRET = Field("secret", Kind.BYTES, REQUIRED, 64, "bytes", "Session secret from welcome.")
TOKEN = text("token", 128, "Token, where the server asks for one; section 4.1.")
VERSION = text(
    "version",
    limits.MAX_VERSION_BYTES,
    "Version of the client: numbers with dots; empty: not said.",
)
CONSUMER = whole(
    "consumer", 2**32 - 1, "Number the client gives the consumer; unique in its session."
)
LEASE = whole(
    "lease_ms", limits.MAX_LEASE_MS, "Length of a lease; 0: as the queue says.", "ms", default=0
)
ATTEMPTS = whole("max_attempts", 1_000, "Attempts before the DLQ; 0: as the queue says.", default=0)
PRIORITY = whole(
    "priority", limits.MAX_PRIORITY, "Higher ones are handed out before lower ones.", default=0
)
TTL = whole(
    "ttl_ms",
    limits.MAX_DELAY_MS,
    "Time to live from the publish on; 0: as the queue says.",
    "ms",
    default=0,
)
SETTINGS = Field("settings", Kind.MAP, REQUIRED, 64, "entries", "Names and values; section 7.")
NAMES = Field(
    "columns", Kind.NAMES, (), 8, "names", "The columns that follow, in the order of the table."
)
AFTER = Field(
    "after",
    Kind.BYTES,
    b"",
    limits.MAX_CURSOR_BYTES,
    "bytes",
    "`next` of the page before; empty: from the start.",
)
# Which dead messages: those of which all holds that is given.
WHERE = (
    text("cause", limits.MAX_CAUSE_CHARS, "Those that ended so: failed, rejected, expired, ..."),
    text("error_class", limits.MAX_ERROR_CLASS_BYTES, "Those with an error of this class."),
    text("error_text", limits.MAX_ERROR_TEXT_BYTES, "Those whose error text has this in it."),
    text("group", limits.MAX_GROUP_CHARS, "Those of this error group (`error_groups`)."),
    text("key", limits.MAX_KEY_BYTES, "Those of this key."),
    text("origin", limits.MAX_QUEUE_NAME_CHARS, "Those that were published to this queue."),
    whole("older_ms", 2**53, "Those that are dead for so long at least.", "ms", default=0),
    whole("younger_ms", 2**53, "Those that are dead for less; 0: any.", "ms", default=0),
)

COLUMNS: Mapping[str, Column] = {
    row.name: row
    for row in (
        Column("delay_ms", "Q", "Delay of each message in ms."),
        Column("key", "str", "Key of each message or run; empty: none."),
        Column("encoding", "B", "Body encoding of each message: 0 bytes, 1 msgpack."),
        Column("unique_key", "str", "Unique key of each message; empty: none."),
        Column("dedupe_id", "str", "Dedupe id of each message; empty: none."),
        Column(
            "run",
            "QIQI",
            "token, origin, first sequence, count: consecutive messages of one delivery.",
        ),
        Column("error_class", "str", "Class of the error of each run; empty: none."),
        Column("error_text", "str", "Text of the error of each run."),
        Column(
            "delivery_run",
            "IQIIBBQ",
            "origin, first sequence, count, attempt number, flags (1: marked), encoding, "
            "published_unix_ms: consecutive messages that share these.",
        ),
        Column(
            "content", "str", "Two entries: the headers of a message (none: empty), and its body."
        ),
        Column(
            "result", "str", "What the messages of each run came to: one msgpack value, or nothing."
        ),
        Column("note", "str", "What a worker says of each run, UTF-8."),
        Column("info", "str", "One msgpack map for each message."),
    )
}
