"""What an answer to peek is made of: what is said of one message, and a page of them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from minibroker.contract import limits
from minibroker.contract.wire import pack_strings
from minibrokerd.core.model.messages import NO_TERMS, Block, Item, Message, State
from minibrokerd.core.model.places import Place
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.walks import Walk

pack: Final = msgspec.msgpack.Encoder().encode
SHOW_LOOKS: Final = 10  # what a message that is shown counts


class Page:
    """One answer while it is filled."""

    def __init__(self, count: int, skip: int) -> None:
        self._count = count
        self._skip = skip
        self._room = limits.DELIVERY_BYTES
        self._infos: list[bytes] = []
        self._bodies: list[tuple[Block, int, int]] = []

    def add(self, info: dict[str, Any], block: Block, sequence: int) -> bool:
        """Add a message; False: it belongs to the next page."""
        if self._skip:
            self._skip -= 1
            return True
        packed = pack(info)
        self._room -= len(packed) + block.bytes_of(sequence, sequence + 1)
        if len(self._infos) == self._count or (self._room < 0 and self._infos):
            return False
        self._infos.append(packed)
        self._bodies.append((block, sequence, sequence + 1))
        return True

    def send(self, walk: Walk, rests_on: int, then: Place | None) -> None:
        """Answer with the page; `then` is where the next one begins."""
        if walk.connection not in walk.store.connections:
            return
        header: dict[str, Any] = {"op": "messages", "request": walk.request}
        header["count"] = len(self._infos)
        if then is not None:
            header["next"] = then.pack()
        columns = pack_strings(self._infos)
        walk.store.send(walk.connection, rests_on, header, columns, self._bodies)


def info_of(state: State, block: Block, key: str, sequence: int) -> dict[str, Any]:
    """Return what peek says of a message that has no history."""
    info = {
        "origin": block.origin,
        "sequence": sequence,
        "state": state.name,
        "encoding": block.encoding_of(sequence),
        "key": key,
        "published_unix_ms": block.unix_ms,
    }
    if block.terms is not NO_TERMS:
        info |= {name: value for name, value in block.terms._asdict().items() if value}
        if block.terms.ttl_ms:
            info["expires_unix_ms"] = block.unix_ms + block.terms.ttl_ms
    if block.uniques is not None and block.uniques[sequence - block.first]:
        info["unique_key"] = block.uniques[sequence - block.first]
    return info


def describe(state: State, item: Item, sequence: int, store: Store) -> dict[str, Any]:
    """Return what peek says of one message; times are unix ms."""
    info = info_of(state, item.block, item.key, sequence)
    if state is State.DELAYED:
        chain = store.chains.waiting.get((item.block.origin, sequence))
        if chain is None:
            info["ready_unix_ms"] = store.unix_ms_at(item.ready_at_ms)
        else:
            info["after"] = chain.says()
    if isinstance(item, Message):
        failed, expired, worker_lost = item.attempts
        info |= {
            "attempts": {"failed": failed, "expired": expired, "worker_lost": worker_lost},
            "redriven": item.redriven,
            "history": [msgspec.structs.asdict(entry) for entry in item.history],
            "history_dropped": item.dropped,
        }
        if item.dead:
            info["dead"] = True
    return info
