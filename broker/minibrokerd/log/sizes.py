"""How large things may be, so that no batch is larger than a segment: one chain of bounds, from the batch to
the message.

The engine closes the open batch from `open_bytes` on, so whatever one apply adds has `apply_bytes` left. A
publish is one record and must fit into that, whatever else stands in its batch; so must a copy of its message
later, with the history of ten attempts. What an apply emits beyond it begins another batch (`Store.add`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from minibroker.contract import limits
from minibroker.contract.wire import RUN

CLOSE_BYTES: Final = 4 * 1024 * 1024  # a larger open batch is closed, so that one sync stays short
# Records around a publish: its outcome, a reservation, a new queue.
PUBLISH_OVERHEAD_BYTES: Final = 512
# By which a message grows, about, when it is written again with an attempt more in its history.
GROWTH_BYTES: Final = 256
COPY_OVERHEAD_BYTES: Final = 16 * 1024  # a copied message beside its bytes: its key, its history


class Sizes(NamedTuple):
    """Bounds in bytes, of records unless something else is said.

    `batch_bytes`: of one batch. `open_bytes`: from here on an open batch is closed. `apply_bytes`: what one
    apply may add to a batch. `frame_bytes`: a frame of a client. `message_bytes`: headers and body of a message.
    `runs_bytes`: runs of one ACK record, in whole runs.
    """

    batch_bytes: int
    open_bytes: int
    apply_bytes: int
    frame_bytes: int
    message_bytes: int
    runs_bytes: int


def sizes_of(max_batch_bytes: int) -> Sizes:
    """Return what fits where batches may have so many bytes of records."""
    open_bytes = min(CLOSE_BYTES, max_batch_bytes // 4)
    apply_bytes = max_batch_bytes - open_bytes
    frame_bytes = min(limits.MAX_FRAME_BYTES, apply_bytes - PUBLISH_OVERHEAD_BYTES)
    # In segments that are too small for copies (no server has them) a large copy gets one of its own.
    message_bytes = max(apply_bytes - COPY_OVERHEAD_BYTES, frame_bytes // 2)
    return Sizes(
        max_batch_bytes,
        open_bytes,
        apply_bytes,
        frame_bytes,
        min(limits.MAX_MESSAGE_BYTES, message_bytes),
        RUN.size * max(apply_bytes // 2 // RUN.size, 1),
    )


LARGEST: Final = sizes_of(24 * 1024 * 1024)  # of segments of the default size
