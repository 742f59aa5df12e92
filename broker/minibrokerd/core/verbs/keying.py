"""Requests about one key of a queue: its weight, and a pause; and the back-off of a nack."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from minibroker.contract import limits
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.key import FOR_EVER_MS
from minibrokerd.core.model.key_settings import Setting, set_key, setting_of, settings_of
from minibrokerd.core.model.messages import Message
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.refusals import Refused, check_space
from minibrokerd.core.model.state import Store

MOST_SHOWN: Final = 1_000  # keys in one answer


def key_set(store: Store, frame: Frame, part: Any) -> None:
    """Set a weight, pause a key or let it go on; answer with what is set."""
    queue = _real(store, part.queue)
    _check(queue, part.key)
    now = setting_of(store, queue, part.key)
    by = store.connections[frame.connection].session.client
    new = now._replace(weight=part.weight or now.weight)
    if part.pause_ms is not None:
        until = (
            store.unix_ms + part.pause_ms if part.pause_ms < limits.MAX_DELAY_MS else FOR_EVER_MS
        )
        new = new._replace(paused_until_unix_ms=until if part.pause_ms else 0)
        new = new._replace(since_unix_ms=store.unix_ms, by=by)
    if new != now:
        check_space(short=store.short)
        set_key(store, queue, part.key, new)
        store.effects.note(
            "key_changed",
            client=by,
            connection=frame.connection,
            queue=queue.name,
            key=part.key,
            weight=new.weight,
            paused=int(bool(new.paused_until_unix_ms)),
        )
    circuits = queue.group.key_circuits
    if part.pause_ms == 0 and circuits is not None and part.key in circuits.open:
        circuits.close(part.key)
        queue.last_batch = store.open_batch
    store.reply(
        frame.connection, frame.request, queue.last_batch, _told(store, queue, part.key, new)
    )


def keys(store: Store, frame: Frame, part: Any) -> None:
    """Answer with the keys of a queue that have an open circuit, or something set; the first thousand of them."""
    queue = store.queue(part.queue)
    found = [
        _told(store, queue, name, setting)
        for name, setting in islice(_noteworthy(store, queue), MOST_SHOWN)
    ]
    store.reply(frame.connection, frame.request, queue.last_batch, {"keys": found})


def _noteworthy(store: Store, queue: Queue) -> Iterator[tuple[str, Setting]]:
    circuits = queue.group.key_circuits
    are_open = circuits.open if circuits is not None else {}
    for name in are_open:
        yield name, setting_of(store, queue, name)
    for name, setting in settings_of(store, queue):
        if name not in are_open:
            yield name, setting


def back_off(store: Store, queue: Queue, name: str, delay_ms: int, by: str) -> None:
    """A nack asks that nothing of its key is handed out for a while; a longer pause that is there stays."""
    now = setting_of(store, queue, name)
    until = store.unix_ms + delay_ms
    if name and until > now.paused_until_unix_ms:
        set_key(store, queue, name, Setting(now.weight, until, store.unix_ms, by))


def block(store: Store, queue: Queue, message: Message) -> None:
    """A message died: if the queue says so, its key waits until it is sent back, or somebody resumes the key."""
    if message.key and queue.settings["key_on_dead"] == "block":
        now = setting_of(store, queue, message.key)
        new = Setting(now.weight, FOR_EVER_MS, store.unix_ms, _death_of(message))
        set_key(store, queue, message.key, new)


def unblock(store: Store, queue: Queue, message: Message) -> None:
    """A dead message is sent back: the key that its death paused goes on with it."""
    if message.key and queue.group.keys is not None:
        now = setting_of(store, queue, message.key)
        if now.by == _death_of(message):
            set_key(store, queue, message.key, Setting(now.weight))


def _death_of(message: Message) -> str:
    return f"the death of {message.block.origin}-{message.sequence}"


def _real(store: Store, name: str) -> Queue:
    queue = store.queue(name)
    if queue.is_dlq:
        raise Refused("bad_value", "keys are set at the source of a dead-letter queue")
    return queue


def _check(queue: Queue, key: str) -> None:
    if not key:
        raise Refused("bad_value", f"no key of {queue.name!r} was named")


def _told(store: Store, queue: Queue, name: str, setting: Setting) -> dict[str, Any]:
    circuit = queue.group.keys.circuit_of(name) if queue.group.keys is not None else None
    said = {} if circuit is None else {"circuit": circuit.said(store)}
    return {"key": name, **setting._asdict(), **said}
