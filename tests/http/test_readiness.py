"""`/healthz` and `/readyz` in each phase of the broker's life."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from minibrokerd.http.application import application
from minibrokerd.http.gate import Gate
from minibrokerd.http.options import HttpOptions
from minibrokerd.http.subject import Phase


@pytest.mark.parametrize(
    ("phase", "status", "text"),
    [
        (Phase.RECOVERING, 503, "recovering 42 %\n"),
        (Phase.READY, 200, "ready\n"),
        (Phase.DRAINING, 503, "draining\n"),
    ],
)
async def test_alive_in_each_phase_and_ready_in_one(phase: Phase, status: int, text: str) -> None:
    """Without a token, and with the reason; the loop turns in all of them."""
    subject: Any = SimpleNamespace(phase=phase, log=SimpleNamespace(recovered_percent=42))
    transport = httpx.ASGITransport(application(subject, Gate(HttpOptions())))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.text) == (status, text)
        assert (await client.get("/healthz")).status_code == 200
