"""A queue that was given the type of its bodies; all others pay nothing for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from minibroker.contract.confirms import Confirm, Confirms
from minibroker.session.declaring import Declaration
from minibroker.session.typed import converter, make_all, plain_maker
from minibroker.sync.driver import Driver
from minibroker.sync.queue import Queue

Body = TypeVar("Body")


class TypedQueue(Queue[Body]):
    """A queue whose bodies are checked when they are published, and made into their type when they are read.

    TypeError if no body can be of the type `body_type`.
    """

    def __init__(
        self, driver: Driver, name: str, declaration: Declaration | None, body_type: Any
    ) -> None:
        super().__init__(driver, name, declaration)
        self._convert = converter(body_type)
        self._plain = plain_maker(body_type)

    def publish(self, body: Body, **options: Any) -> Confirm:
        """As `Queue.publish`; TypeError if the body does not fit the type, and nothing was sent."""
        return super().publish(self._plain(body), **options)

    def publish_many(self, bodies: Iterable[Body], **options: Any) -> Confirms:
        """As `Queue.publish_many`; TypeError names the first body that does not fit, and nothing was sent."""
        return super().publish_many(make_all(self._plain, bodies), **options)

    def _made(self, body: Any) -> Any:
        return self._plain(body)
