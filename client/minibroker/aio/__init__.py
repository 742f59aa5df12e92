"""The client for asyncio: sockets, futures and tasks of an event loop around the pure session."""
