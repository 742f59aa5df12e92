"""Every row of a table has its function: what is announced is also done."""

from __future__ import annotations

import pytest

from minibroker.contract.commands import COMMANDS
from minibroker.contract.metrics import METRICS
from minibroker.contract.settings import SETTINGS, default_settings
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import RECORD_TYPES, TYPE_OF, QueueMeta, UnknownRecord, decode
from minibrokerd.core.replay import APPLY
from minibrokerd.core.verbs.operations import OPERATIONS, Operation
from minibrokerd.log.seam import Record


@pytest.mark.parametrize("row", OPERATIONS.values(), ids=OPERATIONS)
def test_every_operation_has_one_function(row: Operation) -> None:
    """A login, a request, or a part that is checked and applied; a settlement has its verb, too."""
    assert [row.login, row.request, row.apply].count(None) == 2
    assert [row.slices, row.check, row.apply].count(None) in (0, 3)
    assert row.alone == (row.apply is None)
    assert row.settles == (row.settle is not None)


def test_every_record_type_can_be_replayed() -> None:
    assert set(APPLY) == set(RECORD_TYPES.values())


def test_every_metric_has_a_value() -> None:
    queue = Queue(1, "q", 1, default_settings())
    assert set(queue.statistics()) == set(METRICS)


@pytest.mark.parametrize("op", ["queue_set", "queue_declare"])
def test_all_settings_of_a_queue_may_be_said_at_once(op: str) -> None:
    """As who copies a queue does; there were three more to come before that was refused."""
    (field,) = [field for field in COMMANDS[op].fields if field.name == "settings"]
    assert len(SETTINGS) <= field.high


@pytest.mark.parametrize("meta", [b"\x94\x01\xa1\xff\x01\x80", b"\x94\x01", b"\xc1", b""])
def test_a_record_that_cannot_be_read_is_an_unknown_one(meta: bytes) -> None:
    """Text that is no UTF-8, too, which the decoder reports by an error of its own."""
    with pytest.raises(UnknownRecord):
        decode(Record(TYPE_OF[QueueMeta], meta))
