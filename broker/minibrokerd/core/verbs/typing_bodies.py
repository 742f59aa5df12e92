"""Requests about the schema of a queue: what bodies that are published to it must fit."""

from __future__ import annotations

from typing import Any

from minibroker.contract.limits import DLQ_SUFFIX, MAX_SCHEMAS
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.refusals import Refused, check_space
from minibrokerd.core.model.schemas import NO_CHECKER, understood
from minibrokerd.core.model.state import Store


def schema_set(store: Store, frame: Frame, part: Any) -> None:
    """Let a queue take only what fits a schema, from now on; or, with an empty one, anything."""
    if part.queue.endswith(DLQ_SUFFIX):
        raise Refused(
            "bad_name", "nobody publishes to a dead-letter queue; give its source a schema"
        )
    text = bytes(part.schema)
    try:
        schema = understood(store.bodies, text) if text else None
    except ValueError as error:
        raise Refused("bad_value", f"no schema for {part.queue!r:.200}: {error}") from error
    if text and schema is None:
        raise Refused("bad_value", f"{NO_CHECKER}; nothing was changed")
    known = store.queues.get(part.queue)
    has_one = known is not None and known.number in store.schemas.by_queue
    if schema is not None and not has_one and len(store.schemas.by_queue) >= MAX_SCHEMAS:
        text_of = f"{MAX_SCHEMAS} queues of this server have a schema, as many as can"
        raise Refused("limit_reached", f"{text_of}; take some away with an empty one")
    queue = store.queue_or_new(part.queue)
    if text != store.schemas.text_of(store, queue):
        if schema is not None:
            check_space(short=store.short)
            store.schemas.put(store, queue, text, schema)
        else:
            store.schemas.end(store, queue.number)
        queue.last_batch = store.open_batch
        client = store.connections[frame.connection].session.client
        store.effects.note(
            "schema_set",
            client=client,
            connection=frame.connection,
            queue=queue.name,
            bytes=len(text),
        )
    store.reply(frame.connection, frame.request, queue.last_batch, {})


def schema_show(store: Store, frame: Frame, part: Any) -> None:
    """Show the schema of a queue; empty: it has none."""
    queue = store.queue(part.queue)
    text = store.schemas.text_of(store, queue)
    store.reply(frame.connection, frame.request, queue.last_batch, {"schema": text})
