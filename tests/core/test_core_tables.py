"""Every row of a table has its function: what is announced is also done."""

from __future__ import annotations

import pytest

from minibroker.commands import COMMANDS, Phase
from minibroker.metrics import METRICS
from minibroker.settings import default_settings
from minibrokerd.core.queues import Queue
from minibrokerd.core.records import RECORD_TYPES, UnknownRecord, decode
from minibrokerd.core.replay import APPLY
from minibrokerd.core.requests import REQUESTS
from minibrokerd.core.settling import VERBS
from minibrokerd.log.seam import Record


def test_every_command_has_a_handler() -> None:
    logins = {op for op, row in COMMANDS.items() if row.phases == (Phase.NEW,)}
    assert set(REQUESTS) | set(VERBS) | logins | {"publish"} == set(COMMANDS)


def test_every_record_type_can_be_replayed() -> None:
    assert set(APPLY) == set(RECORD_TYPES.values())


def test_every_metric_has_a_value() -> None:
    queue = Queue(1, "q", 1, default_settings())
    assert set(queue.statistics()) == set(METRICS)


@pytest.mark.parametrize("name", [b"\xa1\x80", b"\xa2\xc3\x28"])
def test_a_record_whose_text_is_no_text_is_unknown(name: bytes) -> None:
    """The decoder has an error of its own for it, and a start must say what it met."""
    meta = b"\x94\x01" + name + b"\x01\x80"
    with pytest.raises(UnknownRecord, match="type 2 cannot be read"):
        decode(Record(2, meta))
