"""Keeps the leader of the stream off the machine of the broker that leads.

The loss of a machine then costs one of two things, never both: another broker takes over, within seconds, or the
servers of NATS elect another leader of the stream, which takes them 4 to 9 s.
"""

from __future__ import annotations

from typing import Final

from minibrokerd.process.logs import OwnText, events
from minibrokerd.replicated.stream import Info, Stream, StreamAway

APART_S: Final = 5.0  # between two looks: an election may have brought it back


async def keep_apart(stream: Stream) -> Info | None:
    """Have another server lead the stream, if the one beside this broker does and another one has all of it.

    Returns what was said of the stream; None: nothing.
    """
    beside = stream.beside
    try:
        info = await stream.info()
    except StreamAway:
        return None
    others = [name for name in info.servers if name != beside and name not in info.behind]
    if not beside or info.leader != beside or not others:
        return info
    try:
        await stream.step_down(others[0])
    except StreamAway:
        return info  # it is looked at again
    events.info(
        "stream_leader_moved", stream=OwnText(stream.name), before=beside, preferred=others[0]
    )
    return info
