"""Frames that the model's clients send: what they may have to send again, and steps as bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from core_client import Delivered, settle_part

from minibroker.contract import wire


@dataclass(slots=True)
class Sent:
    """A sequenced frame that a client may have to send again."""

    kind: str
    payload: bytes
    queue: str = ""
    messages: list[Delivered] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)
    lost: list[tuple[int, int, int, int]] = field(default_factory=list)
    stored: list[tuple[int, int]] = field(default_factory=list)  # ids of what a publish stored
    duplicates: list[tuple[int, int, int, int]] = field(
        default_factory=list
    )  # what it says of others
    is_noted: bool = False  # dedupe ids were new
    known: bool = True  # the server has its outcome, or will say that it has
    answer: Any = None


def step_frame(
    messages: Sequence[Delivered],
    bodies: Sequence[bytes],
    delays: Sequence[int],
    keys: Sequence[str],
    names: dict[str, Sequence[str]],
    **fields: Any,
) -> tuple[list[dict[str, Any]], bytes, bytes, bytes]:
    """Return parts, columns, lengths and blob: messages of one queue are acked, others are published to `q`.

    `names` are columns of unique keys and dedupe ids.
    """
    acks, columns = settle_part("ack", messages[0].queue, [m.run for m in messages])
    columns += struct.pack(f"<{len(delays)}Q", *delays)
    columns += wire.pack_strings([key.encode() for key in keys])
    for texts in names.values():
        columns += wire.pack_strings([text.encode() for text in texts])
    publish = {"op": "publish", "queue": "q", "count": len(delays), **fields}
    publish["columns"] = ["delay_ms", "key", *names]
    lengths = b"".join(struct.pack("<II", 0, len(body)) for body in bodies)
    return [acks, publish], columns, lengths, b"".join(bodies)
