"""How full batches get: copies fill the segment that is written, and what must not be parted makes a larger one.

What stays empty in each segment is what a pass over a full disk costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from minibrokerd.core.model.state import Store


@contextmanager
def filling(store: Store, rest_bytes: int) -> Iterator[None]:
    """Have what is emitted meanwhile begin another batch behind so many bytes (0: it does not matter).

    The batch ends with it, too: what others emit would not fit any more, and move all of it.
    """
    apply_bytes, effects = store.sizes.apply_bytes, store.effects
    store.room_bytes = min(rest_bytes or apply_bytes, apply_bytes)
    yield
    store.room_bytes = apply_bytes
    if rest_bytes and effects.records:
        effects.ended += ((store.open_batch, effects.records, effects.record_bytes),)
        effects.records, effects.record_bytes = [], 0
        store.open_batch += 1


@contextmanager
def undivided(store: Store, size_bytes: int) -> Iterator[None]:
    """Have what is emitted meanwhile, of so many bytes at the most, stand in one batch.

    That is larger than others, as its segment is, where a message was published when segments were larger.
    """
    apply_bytes = store.sizes.apply_bytes
    store.keep_together(size_bytes)
    store.room_bytes = max(size_bytes, apply_bytes)
    yield
    store.room_bytes = apply_bytes
