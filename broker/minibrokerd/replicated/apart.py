"""Keeps the leader of the stream off the machine of the broker that leads.

The loss of a machine then costs one of two things, never both: another broker takes over, within seconds, or the
servers of NATS elect another leader of the stream, which takes them 4 to 9 s.

A move stalls appends, for tenths of a second where the servers have much to do. So it is not made while clients
come back from a broker that has ended; and the leader goes where no broker is, if a third server is there, so
that the next takeover finds it apart.
"""

from __future__ import annotations

from typing import Final

from minibrokerd.process.logs import OwnText, events
from minibrokerd.replicated.stream import Info, Stream, StreamAway

APART_S: Final = 5.0  # before each look: an election may have brought it back


async def keep_apart(stream: Stream, another: str = "") -> Info | None:
    """Have another server lead the stream, if the one beside this broker does and another one has all of it.

    `another` is beside a broker that may lead next, as far as is known: any other is preferred.
    Returns what was said of the stream; None: nothing.
    """
    beside = stream.beside
    try:
        info = await stream.info()
    except StreamAway:
        return None
    others = [name for name in info.servers if name != beside and name not in info.behind]
    others.sort(key=lambda name: name == another)
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
