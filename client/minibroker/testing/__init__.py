"""For tests of applications: a broker in memory whose time a test moves and which it can break, and a real one.

async with minibroker.testing.MemoryBroker() as broker:
    await broker.queue("emails").publish({"to": "bob@example.com"}, delay=timedelta(days=7))
    await broker.advance(timedelta(days=7))

docs/testing.md shows more, and the fixtures of the pytest plugin, which are made of these.
"""

from minibroker.testing.blocking import SyncMemoryBroker
from minibroker.testing.in_memory import MemoryBroker
from minibroker.testing.server_process import ServerProcess

__all__ = ["MemoryBroker", "ServerProcess", "SyncMemoryBroker"]
