"""What a type checker knows of a queue that was given a type: `make check` reads this, and the run agrees."""

# mypy: warn-unused-ignores
# A line that is wrong, and that mypy would not see, is an ignore too much: then `make check` fails here.

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import assert_type

import pytest

import minibroker
import minibroker.sync
from minibroker.sync.message import Message as BlockingMessage
from minibroker.sync.queue import Queue as BlockingQueue


@dataclass
class Email:
    """The body of a queue."""

    to: str
    at: datetime


async def test_a_queue_of_emails_takes_and_gives_emails() -> None:
    async with minibroker.connect("memory://") as broker:
        emails = assert_type(broker.queue("emails", Email), minibroker.Queue[Email])
        email = Email("bob", datetime(2026, 1, 2))
        await emails.publish(email)
        await emails.publish_many([email], delay=60)
        with pytest.raises(TypeError):
            await emails.publish({"to": "bob"})  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await emails.publish_many([email, "bob"])  # type: ignore[list-item]
        with pytest.raises(AttributeError):
            await emails.publsh(email)  # type: ignore[attr-defined]
        [message] = await emails.receive()
        assert assert_type(message, minibroker.Message[Email]).body == email
        assert assert_type(message.body.to, str) == "bob"
        with pytest.raises(AttributeError):
            message.body.subject  # type: ignore[attr-defined] # noqa: B018


def test_so_does_one_of_the_blocking_client() -> None:
    with minibroker.sync.connect("memory://") as broker:
        emails = assert_type(broker.queue("emails", Email), BlockingQueue[Email])
        email = Email("bob", datetime(2026, 1, 2))
        emails.publish(email)
        with pytest.raises(TypeError):
            emails.publish(b"bob")  # type: ignore[arg-type]
        [message] = emails.receive()
        assert assert_type(message, BlockingMessage[Email]).body == email
