"""How a client of nats-py is made, and waited for until it is connected."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from minibrokerd.replicated.failures import NoClient
from minibrokerd.replicated.nats_login import PLAIN
from minibrokerd.replicated.stream_address import StreamAddress


def new_client(address: StreamAddress) -> tuple[Any, type[Exception]]:
    """Return a client that is not connected, and what its errors are; NoClient."""
    try:
        from nats import errors
        from nats.aio.client import Client
    except ImportError as error:
        raise NoClient from error

    class Checked(Client):  # type: ignore[misc]  # what it is made of is not typed
        """Says nothing of who asks to a server that does not encrypt, if it should."""

        async def _process_info(
            self, info: dict[str, Any], initial_connection: bool = False
        ) -> None:
            if address.tls and initial_connection and not info.get("tls_required"):
                raise errors.Error(PLAIN)
            await super()._process_info(info, initial_connection)

    return Checked(), errors.Error


async def unless(
    connecting: Coroutine[Any, Any, None], refused: asyncio.Event, most_s: float
) -> None:
    """Wait for a connection to be made, but not on after a refusal: nats-py can wait for ever then."""
    tasks = asyncio.ensure_future(connecting), asyncio.ensure_future(refused.wait())
    try:
        await asyncio.wait(tasks, timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise TimeoutError
        await tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
