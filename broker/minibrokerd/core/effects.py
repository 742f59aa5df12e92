"""What the shell owes the core after one apply. The order of the fields is the order of execution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minibrokerd.core.messages import Block
from minibrokerd.log.seam import Record


class Outgoing:
    """One frame for one connection; it leaves when batch `rests_on` is synced (0: at once).

    `bodies` are (block, first sequence, stop): the shell fills in lengths and blob. `pieces` is for the shell,
    which may encode the frame while it waits.
    """

    __slots__ = ("bodies", "columns", "connection", "header", "pieces", "rests_on")

    def __init__(
        self,
        connection: int,
        rests_on: int,
        header: dict[str, Any],
        columns: bytes = b"",
        bodies: Sequence[tuple[Block, int, int]] = (),
    ) -> None:
        self.connection = connection
        self.rests_on = rests_on
        self.header = header
        self.columns = columns
        self.bodies = bodies
        self.pieces: list[Any] | None = None


class Effects:
    """Effects of one apply: records first, then what rests on them, then what ends.

    `wake`: the records are not only leases, so they should be synced soon even if nobody waits. `lazy`: some
    records were confirmed before their sync, which must follow within `LAZY_SYNC_MS`.
    """

    __slots__ = ("closes", "lazy", "outgoing", "records", "wake")

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.outgoing: list[Outgoing] = []
        self.closes: list[int] = []  # connections that end, after what was sent to them
        self.wake = False
        self.lazy = False
