"""`benchmarks.micro` runs against the core of today; a quarter of its messages pass 1 MiB of deliveries."""

from __future__ import annotations

import pytest
from benchmarks import micro


@pytest.mark.parametrize("size", [1, 100])
def test_every_message_is_received_and_acked(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a connection may be sent at once is given anew in between."""
    monkeypatch.setattr(micro, "MESSAGES", 12_000)
    monkeypatch.setattr(micro, "REPETITIONS", 1)
    rows = micro.measure(size)
    assert {"core: receive (begun)", "core: ack"} <= set(rows.microseconds())
