"""A message of the model, and what the records of it say."""

from __future__ import annotations

from dataclasses import dataclass

Id = tuple[int, int]


@dataclass(slots=True)
class Logged:
    """A message as its records describe it."""

    queue: str
    begun: bool = False
    ready_at_ms: int = 0
    wait_ms: int = 0
    written_unix_ms: int = 0
    charged: int = 0
    failed: int = 0
    marked: bool = False
    releases: int = 0
    token: int = 0
    ended: int = 0
    session: int = 0
    lease_ms: int = 0
    dead: bool = False
    redriven: bool = False


@dataclass(slots=True)
class Modelled:
    """One message that has not ended."""

    id: Id
    queue: str
    key: str
    body: bytes
    durability: str
    epoch: int
    state: str
    ready_at_ms: int
    charged: int = 0
    failed: int = 0
    marked: bool = False
    releases: int = 0
    token: int = 0
    ended: int = 0
    session: int = 0
    connection: int = 0
    lease_ms: int = 0
    deadline_ms: int = 0
    handed: bool = False  # begun as it was handed out
    unseen: bool = False  # it came back once as if it had never been handed out
    dead: bool = False  # it waits for room in the DLQ
    own_max_attempts: int = 0
    own_lease_ms: int = 0
    priority: int = 0
    ttl_ms: int = 0
    unique: str = ""
    published_unix_ms: int = 0
    expires_ms: int = 0
    redriven: bool = False
    logged: Logged | None = None
