"""The broker as whoever looks at it sees it: what may be looked at, and in which phase of its life it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from minibrokerd.core.core import Core
from minibrokerd.engine.engine import Engine
from minibrokerd.log.seam import Log
from minibrokerd.net.connections import Connections

if TYPE_CHECKING:
    from collections.abc import Callable

    from minibrokerd.core.model.state import Store
    from minibrokerd.log.replication import Replication


class Phase(Enum):
    """Where the broker stands in its life; only one that is READY takes work."""

    STANDBY = "standby"  # another broker leads the log
    RECOVERING = "recovering"
    READY = "ready"
    DRAINING = "draining"


@dataclass(slots=True)
class View:
    """One broker. It is changed through `connections` alone, as by any client; the rest is read."""

    core: Core
    engine: Engine
    log: Log
    connections: Connections
    loop: asyncio.AbstractEventLoop
    memory_limit_bytes: int
    started_unix: float
    recovered_ms: int = 0
    ready_unix: float = 0.0  # since when it takes work; 0: not yet
    phase: Phase = Phase.RECOVERING
    data_dir: str = ""
    replication: Callable[[], Replication] | None = None  # of a log on several machines
    active: str = ""  # while this broker stands by: host:port of the one that leads; empty: not known, or this one

    @property
    def is_open(self) -> bool:
        """Whether the log was read, so that there is something to be seen."""
        return self.phase in (Phase.READY, Phase.DRAINING)

    @property
    def not_ready(self) -> str:
        """Why it takes no work now, in words."""
        text = f"the broker is {self.phase.value}"
        if self.phase is not Phase.STANDBY or not self.active or self.replication is None:
            return text
        return (
            f"{text}: {self.active} leads, and this one is {self.replication().lag_s:.1f} s behind"
        )

    @property
    def store(self) -> Store:
        """Queues, sessions and deliveries."""
        return self.core.store
