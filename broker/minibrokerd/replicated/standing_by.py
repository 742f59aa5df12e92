"""A broker that stands by: it waits until nobody says any more that it leads.

Nothing rests on what is heard. Who takes over although another one leads deposes that one, by its epoch record;
this is only so that two brokers with supervisors do not depose each other for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

from minibrokerd.process.logs import OwnText, events
from minibrokerd.replicated.nats_stream import NatsStream
from minibrokerd.replicated.stream_address import StreamAddress
from minibrokerd.replicated.words import Word, decode

SILENT_S: Final = 2.0  # four times what is between two words of whoever leads
SLICE_S: Final = 0.05


async def until_silent(
    address: StreamAddress, is_stopped: Callable[[], object], hears: Callable[[Word], object]
) -> None:
    """Return when no broker has said for `SILENT_S` that it leads, or somebody asked for a stop.

    `hears` is told whatever one says.

    Raises:
        NoClient, StreamUnfit, StreamUnreachable
    """
    stream, last_s, is_told = NatsStream(address), monotonic(), False

    def heard(said: bytes) -> None:
        nonlocal last_s, is_told
        last_s, word = monotonic(), decode(said)
        hears(word)
        if not is_told:
            is_told = True
            events.info("standing_by", stream=OwnText(address), active=word.address or "unknown")

    await stream.open()
    try:
        await stream.hear(heard)
        last_s = monotonic()
        while monotonic() - last_s < SILENT_S and not is_stopped():
            await asyncio.sleep(SLICE_S)
            if not stream.is_connected:  # silence counts where something could be heard
                last_s = monotonic()
    finally:
        await stream.close()
