"""What the model itself owes to be just: each of these once accused a core that had done nothing."""

from __future__ import annotations

from test_model import Broker


def test_a_retime_while_the_disk_is_far_behind() -> None:
    """The core does it when the disk has followed; the model had done it at once."""
    machine = Broker()
    machine.begin_with(key_concurrency=1)
    for _ in range(5):
        machine.publish(0, [0], [""], (0, 0, 0, 0), safe=False)
        machine.close()
    machine.retime(index=0, back=0, queue="q", delay_ms=5_000)
    machine.the_core_agrees_with_the_model()
    machine.teardown()
