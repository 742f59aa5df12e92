"""What a broker whose log is on several machines knows of it: how far it is behind, and how the stream is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replication:
    """One look. What is of the servers of NATS is what one of them said of late to a broker that leads.

    `lag_entries` and `lag_s` are of a broker that stands by: how many entries whoever leads had appended that have
    no part in its state yet, and for how long the oldest of them has been there. `stalled_s`: for how long an
    append waits; 0: none does. `limit_bytes`: 0 where there is none. `leader`: empty where no server is known to
    lead the stream.
    """

    epoch: int = 0
    lag_entries: int = 0
    lag_s: float = 0.0
    stalled_s: float = 0.0
    size_bytes: int = 0
    limit_bytes: int = 0
    leader: str = ""
    behind: int = 0  # servers that are away, or have not all of the stream
