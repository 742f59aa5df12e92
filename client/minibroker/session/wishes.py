"""What an application asks of a queue, checked and in the form of the wire; how it waits for it is the shell's.

A wish is an operation, its fields and its columns: the arguments of a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from minibroker.contract import limits, wire
from minibroker.contract.bodies import encode_body, encode_headers
from minibroker.contract.confirms import MessageId
from minibroker.contract.errors import BadName, BadValue, CommandError, TooLarge
from minibroker.contract.settings import SETTINGS, UNIQUE_MODES
from minibroker.session import typed
from minibroker.session.arguments import MAX_TIMEOUT_MS
from minibroker.session.declaring import checked
from minibroker.session.outbox import GROUP_MESSAGES, MESSAGE_RESERVE, NAMES_RESERVE, Key
from minibroker.session.spans import Span, milliseconds, of_type, shown, whole

Wish = tuple[str, dict[str, object], bytes]
DROP: Final = UNIQUE_MODES[0]
NO_NAMES: Final = b"", b""
NO_IDS: Final = (
    "these are no message ids; a confirm and a message have theirs as .id, "
    "and MessageId.parse makes one of the text that it prints"
)


def check_name(name: str) -> str:
    """Return the name of a queue; TypeError, BadName if it can be none."""
    of_type("name", name, str, "the name of a queue, a str")
    size = len(utf8(name, BadName))
    if not 0 < size <= limits.MAX_QUEUE_NAME_CHARS + len(limits.DLQ_SUFFIX):
        most = limits.MAX_QUEUE_NAME_CHARS
        raise BadName(
            f"a queue name of {size} bytes; it must have 1 to {most}, and a DLQ its suffix"
        )
    return name


# ---- publishing ----


class Ready(NamedTuple):
    """One message as it is published; `names`: its unique key and dedupe id; `cost`: its bytes in a frame."""

    headers: bytes
    body: bytes
    encoding: int
    key: bytes
    delay_ms: int
    names: tuple[bytes, bytes]
    cost: int


class ReadyMany(NamedTuple):
    """Many messages that share headers, key and delay; `each` is what one takes of a frame beside its body.

    `names` are the unique key and the dedupe id of each; empty: nobody has one.
    """

    headers: bytes
    bodies: Sequence[bytes]
    encodings: Sequence[int]
    key: bytes
    delay_ms: int
    names: Sequence[tuple[bytes, bytes]]
    each: int


def ready(
    body: Any,
    headers: Mapping[str, object] | None,
    key: str | None,
    delay: Span | None,
    most_bytes: int,
    unique_key: str | None = None,
    dedupe_id: str | None = None,
) -> Ready:
    """Return a message as it is published; TypeError, BadValue, TooLarge if it cannot be."""
    try:
        raw, encoding = (body, 0) if type(body) is bytes else encode_body(body)
    except TypeError:  # no plain body: those that are pay nothing for this
        raw, encoding = typed.write(body)
    packed = encode_headers(headers)
    _check_size(len(raw) + len(packed), most_bytes)
    key_bytes = b"" if key is None else _key_bytes(key)
    delay_ms = 0 if delay is None else milliseconds("delay", delay, limits.MAX_DELAY_MS)
    cost = len(raw) + len(packed) + len(key_bytes) + MESSAGE_RESERVE
    names = NO_NAMES
    if not (unique_key is None and dedupe_id is None):
        names = _name_bytes("unique_key", unique_key), _name_bytes("dedupe_id", dedupe_id)
        cost += sum(map(len, names)) + NAMES_RESERVE
    return Ready(packed, raw, encoding, key_bytes, delay_ms, names, cost)


def plain(body: bytes) -> Ready:
    """Return what `ready` does of bytes that come with nothing else, and are small enough."""
    return Ready(b"", body, 0, b"", 0, NO_NAMES, len(body) + MESSAGE_RESERVE)


def ready_many(
    bodies: Iterable[Any],
    headers: Mapping[str, object] | None,
    key: str | None,
    delay: Span | None,
    most_bytes: int,
    unique_keys: Iterable[str] | None = None,
    dedupe_ids: Iterable[str] | None = None,
) -> ReadyMany:
    """Return messages as they are published; TypeError, BadValue, TooLarge if they cannot be."""
    raws, encodings = _encode_all(bodies)
    packed = encode_headers(headers)
    if raws:
        _check_size(len(packed) + max(map(len, raws)), most_bytes)
    key_bytes = b"" if key is None else _key_bytes(key)
    delay_ms = 0 if delay is None else milliseconds("delay", delay, limits.MAX_DELAY_MS)
    each = len(packed) + len(key_bytes) + MESSAGE_RESERVE
    names = _names_of_all(len(raws), unique_keys, dedupe_ids)
    if names:
        each += max(len(unique) + len(dedupe) for unique, dedupe in names) + NAMES_RESERVE
    return ReadyMany(packed, raws, encodings, key_bytes, delay_ms, names, each)


def _names_of_all(
    count: int, unique_keys: Iterable[str] | None, dedupe_ids: Iterable[str] | None
) -> list[tuple[bytes, bytes]]:
    if unique_keys is None and dedupe_ids is None:
        return []
    columns = []
    for what, texts in (("unique_key", unique_keys), ("dedupe_id", dedupe_ids)):
        packed = [b""] * count if texts is None else [_name_bytes(what, text) for text in texts]
        if len(packed) != count:
            raise BadValue(
                f"{len(packed)} {what}s came for {count} bodies; it must be one for each"
            )
        columns.append(packed)
    return list(zip(*columns, strict=True))


def place(
    queue: str,
    timeout: Span | None,
    default_ms: int,
    max_attempts: int | None,
    lease: Span | None,
    priority: int,
    unique: str = DROP,
    dedupe_window: Span | None = None,
    ttl: Span | None = None,
    *,
    names: Sequence[object] = (None, None),
) -> Key:
    """Return what publishes share that leave in one frame; TypeError, BadValue if they cannot have these terms.

    `names` are their unique keys and dedupe ids, None for none: terms of what they do not have would do nothing.
    """
    within_ms = timeout_ms(timeout, default_ms)
    asked = max_attempts, lease, priority, unique, dedupe_window, ttl
    if asked == (None, None, 0, DROP, None, None):
        return queue, within_ms
    most = SETTINGS["max_attempts"].high
    attempts = 0 if max_attempts is None else whole("max_attempts", max_attempts, 1, most)
    whole("priority", priority, 0, limits.MAX_PRIORITY)
    if unique not in UNIQUE_MODES:
        raise BadValue(f"unique is {shown(unique)}; it must be one of {', '.join(UNIQUE_MODES)}")
    if unique != DROP and names[0] is None:
        raise idle("unique", unique, "unique_key")
    mode = "" if unique == DROP else unique
    window_ms = 0
    if dedupe_window is not None:
        window_ms = milliseconds("dedupe_window", dedupe_window, limits.MAX_DELAY_MS, 1)
        if names[1] is None:
            raise idle("dedupe_window", dedupe_window, "dedupe_id")
    ttl_ms = 0 if ttl is None else milliseconds("ttl", ttl, limits.MAX_DELAY_MS, 1)
    return queue, within_ms, attempts, lease_ms(lease), priority, mode, window_ms, ttl_ms


def idle(name: str, value: object, missing: str) -> BadValue:
    """Return the refusal of an argument that says how another one works which is not there."""
    return BadValue(f"{name} is {shown(value)} and there is no {missing}; give both, or neither")


def timeout_ms(timeout: Span | None, default_ms: int) -> int:
    """Return the deadline of a call in ms."""
    return default_ms if timeout is None else milliseconds("timeout", timeout, MAX_TIMEOUT_MS)


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise TooLarge(f"a message of {size} bytes exceeds {most}; publish a reference instead")


# ---- consuming ----


def receive(
    queue: str, count: int, wait: Span, lease: Span | None, timeout: Span | None, default_ms: int
) -> tuple[Wish, int]:
    """Return the wish for messages, and within how many ms it is to be answered: it may `wait` at the server."""
    within_ms = timeout_ms(timeout, default_ms)
    wait_ms = milliseconds("wait", wait, limits.MAX_WAIT_MS)
    fields = {
        "queue": queue,
        "count": whole("count", count, 1, limits.MAX_MESSAGES_PER_FRAME),
        "wait_ms": wait_ms,
        "lease_ms": lease_ms(lease),
    }
    return ("receive", fields, b""), within_ms and wait_ms + within_ms


def lease_ms(lease: Span | None) -> int:
    """Return a lease in ms, 0 for what the queue says."""
    if lease is None:
        return 0
    return milliseconds("lease", lease, limits.MAX_LEASE_MS, limits.MIN_LEASE_MS)


# ---- by hand: None where nothing is named, so nothing need be asked ----


def peek(
    queue: str,
    count: int,
    skip: int,
    ids: Iterable[MessageId] | None,
    state: str,
    after: bytes,
    order: str,
    unique_key: str | None = None,
) -> Wish | None:
    """Return the wish to look at messages."""
    runs = runs_of(ids)
    if ids is not None and not runs:
        return None
    of_type("state", state, str, "a str")
    of_type("order", order, str, "a str")
    of_type("after", after, bytes, "the `next` of an earlier peek")
    fields: dict[str, object] = {
        "queue": queue,
        "count": whole("count", count, 1, limits.MAX_MESSAGES_PER_FRAME),
        "skip": whole("skip", skip, 0, limits.MAX_PEEK_SKIP),
        "after": after,
        "state": state,
        "runs": len(runs),
    }
    if order:  # a server of an earlier release knows no such field
        fields["order"] = order
    if _name_bytes("unique_key", unique_key):
        fields["unique_key"] = unique_key
    return "peek", fields, wire.pack_runs(runs)


def purge(queue: str, ids: Iterable[MessageId] | None) -> Wish | None:
    """Return the wish to end messages."""
    runs = runs_of(ids)
    if ids is not None and not runs:
        return None
    return "purge", {"queue": queue, "runs": len(runs)}, wire.pack_runs(runs)


def move(queue: str, target: str, ids: Iterable[MessageId] | None, count: int) -> Wish | None:
    """Return the wish to move messages to another queue."""
    runs = runs_of(ids)
    if ids is not None and not runs:
        return None
    of_type("target", target, str, "the name of a queue, a str")
    fields: dict[str, object] = {"queue": queue, "target": target, "runs": len(runs)}
    fields["count"] = whole("count", count, 0, 2**53)
    return "move", fields, wire.pack_runs(runs)


def temporary(settings: Mapping[str, int | str]) -> Wish:
    """Return the wish for an exclusive queue that the server gives a name; BadValue if it cannot have these."""
    return "queue_declare", {"queue": "", "exclusive": 1, "settings": checked(settings)}, b""


def change(queue: str, settings: Mapping[str, int | str], unset: Iterable[str] = ()) -> Wish:
    """Return the wish to change settings; BadValue if one is unknown, or outside its range."""
    fields: dict[str, object] = {"queue": queue, "settings": checked(settings)}
    names = [unset] if isinstance(unset, str) else list(unset)
    checked({name: SETTINGS[name].default if name in SETTINGS else 0 for name in names})
    return "queue_set", fields | {"unset": names} if names else fields, b""


def runs_of(ids: Iterable[MessageId] | None) -> list[tuple[int, int, int, int]]:
    """Return the runs that name `ids`, each of its own; TypeError if one of them is no id."""
    if ids is None:
        return []
    try:
        runs = [(0, origin, sequence, 1) for origin, sequence in ids]
    except (TypeError, ValueError) as error:
        raise TypeError(f"{shown(ids)}: {NO_IDS}") from error
    for _, origin, sequence, _ in runs:
        whole("ids: an origin", origin, 0, 2**32 - 1)
        whole("ids: a sequence", sequence, 0, 2**64 - 1)
    return runs


def _key_bytes(key: str) -> bytes:
    of_type("key", key, str, "a str")
    data = utf8(key, BadValue)
    if len(data) > limits.MAX_KEY_BYTES:
        raise BadValue(f"a key of {len(data)} bytes exceeds {limits.MAX_KEY_BYTES}")
    return data


def _name_bytes(what: str, name: str | None) -> bytes:
    """Return a unique key or a dedupe id as bytes; empty: there is none."""
    if name is None:
        return b""
    of_type(what, name, str, "a str")
    data = utf8(name, BadValue)
    if not 0 < len(data) <= limits.MAX_KEY_BYTES:
        raise BadValue(f"{what} has {len(data)} bytes; it must have 1 to {limits.MAX_KEY_BYTES}")
    return data


def utf8(text: str, refusal: type[CommandError]) -> bytes:
    """Return a text as UTF-8; `refusal` if it cannot be."""
    try:
        return text.encode()
    except (
        UnicodeEncodeError
    ) as error:  # Python makes lone surrogates of arguments that are not UTF-8
        raise refusal(f"names and keys are UTF-8, which {text!r} cannot be") from error


def _encode_all(bodies: Iterable[Any]) -> tuple[Sequence[bytes], Sequence[int]]:
    bodies = bodies if isinstance(bodies, (list, tuple)) else list(bodies)
    if set(map(type, bodies)) == {bytes}:
        return bodies, bytes(len(bodies))
    try:
        pairs = [encode_body(body) for body in bodies]
    except TypeError:
        pairs = typed.write_all(bodies)
    return [raw for raw, _ in pairs], [encoding for _, encoding in pairs]


def chunks(raws: Sequence[bytes], each: int, most_bytes: int) -> list[tuple[int, int]]:
    """Return the ranges of `raws` that go into one frame each; a message costs `each` bytes beside its body."""
    count = len(raws)
    if count <= GROUP_MESSAGES and sum(map(len, raws)) + count * each <= most_bytes:
        return [(0, count)] if raws else []
    if GROUP_MESSAGES * (max(map(len, raws)) + each) <= most_bytes:  # small ones, as mostly
        return [(at, min(at + GROUP_MESSAGES, count)) for at in range(0, count, GROUP_MESSAGES)]
    chunks, first, size = [], 0, 0
    for index, raw in enumerate(raws):
        cost = len(raw) + each
        if index > first and (index - first >= GROUP_MESSAGES or size + cost > most_bytes):
            chunks.append((first, index))
            first, size = index, 0
        size += cost
    chunks.append((first, len(raws)))
    return chunks
