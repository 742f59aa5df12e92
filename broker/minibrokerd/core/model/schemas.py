"""The schemas of queues: kept by the number of their queue, understood and asked by the shell (decision 67)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from minibrokerd.core.model.extents import Bodies, Extent, NoChecker, Schema
from minibrokerd.core.model.kept import SCHEMA
from minibrokerd.core.model.refusals import Refused

if TYPE_CHECKING:
    from minibrokerd.core.model.inputs import Frame
    from minibrokerd.core.model.queues import Queue
    from minibrokerd.core.model.state import Store

MOST_FRAME_BYTES: Final = 1024 * 1024
NO_CHECKER: Final = "this server cannot check schemas: it needs `pip install 'minibroker[schema]'`"


class NotUnderstood:
    """Stands for a schema that was taken once and is none for what checks them now: nothing fits it."""

    __slots__ = ("_why",)

    def __init__(self, why: str) -> None:
        self._why = why

    def misfit(self, body: memoryview, encoding: int) -> tuple[str, str]:
        """Return that no body fits, and why."""
        return "bad_value", f"the schema is not understood any more, set another one: {self._why}"


class Schemas:
    """Those of all queues that have one, by their numbers; None: nothing here can ask it."""

    __slots__ = ("by_queue",)

    def __init__(self) -> None:
        self.by_queue: dict[int, Schema | None] = {}

    def opened(self, store: Store) -> None:
        """Take up what stands after a replay; what is no schema any more takes nothing."""
        for entry in list(store.kept.of(SCHEMA)):
            number, text = entry.key[0], entry.value[0]
            assert isinstance(number, int)
            assert isinstance(text, bytes)
            if number not in store.by_number:
                store.kept.forget(SCHEMA, entry.key)  # its queue was deleted since
                continue
            try:
                self.by_queue[number] = understood(store.bodies, text)
            except ValueError as error:
                self.by_queue[number] = NotUnderstood(str(error))
                store.jobs.append(partial(_tell, store, number, str(error)))

    def text_of(self, store: Store, queue: Queue) -> bytes:
        """Return the schema of a queue as it was set; empty: it has none."""
        value = store.kept.get(store, SCHEMA, (queue.number,))
        text = value[0] if value is not None else b""
        assert isinstance(text, bytes)
        return text

    def put(self, store: Store, queue: Queue, text: bytes, schema: Schema) -> None:
        """Let a queue have a schema, over a restart, too."""
        self.by_queue[queue.number] = schema
        store.kept.put(store, SCHEMA, (queue.number,), (text,))

    def end(self, store: Store, number: int) -> None:
        """Let a queue have none, or be gone."""
        if number in self.by_queue:
            del self.by_queue[number]
            store.kept.end(store, SCHEMA, (number,))

    def check(
        self, queue: Queue, frame: Frame, extent: Extent, part: Any, columns: dict[str, Any]
    ) -> None:
        """Check that all messages of a publish fit the schema of a queue, if it has one.

        Raises:
            Refused: `schema_mismatch`, with the place; `too_large`, it has more bytes than are checked; or
                `bad_value`, nothing here can check it.
        """
        if queue.number not in self.by_queue:
            return
        schema = self.by_queue[queue.number]
        if schema is None:
            raise Refused("bad_value", f"the queue {queue.name!r} has a schema, and {NO_CHECKER}")
        if frame.size > MOST_FRAME_BYTES:
            raise Refused(
                "too_large",
                f"a frame of {frame.size} bytes; those to a queue with a schema have {MOST_FRAME_BYTES} at the "
                "most, as all of it is checked at once",
            )
        encodings = columns.get("encoding")
        for index, body in enumerate(extent.bodies(part.count)):
            encoding = part.encoding if encodings is None else encodings[index]
            wrong = schema.misfit(body, encoding)
            if wrong is not None:
                at = f"bodies[{index}]: " if part.count > 1 else ""
                code, text = wrong
                raise Refused(
                    code, f"{at}{text} (the schema of {queue.name!r}); nothing was stored"
                )


def _tell(store: Store, number: int, why: str) -> bool:
    """Say to the operator that a queue takes nothing; a job of the first tick, as a start has nobody to tell."""
    if number in store.by_number:
        store.effects.warn("schema_set_aside", queue=store.by_number[number].name, text=why)
    return True


def understood(bodies: Bodies, text: bytes) -> Schema | None:
    """Return a schema that can be asked; None: nothing here can.

    Raises:
        ValueError: it is none.
    """
    try:
        return bodies.schema(text)
    except NoChecker:
        return None
