"""A step as one frame: acks and what follows from them, which the server does together or not at all.

The messages that it acks are the frame's from its beginning on: nobody else may settle them. If it is refused,
nothing was done, and they are the application's again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from minibroker.contract import limits, wire
from minibroker.contract.confirms import ConfirmRun, RoutedRun, known_of
from minibroker.contract.errors import TooLarge
from minibroker.session.frame_room import STRING_BYTES
from minibroker.session.message import MessageData
from minibroker.session.outbox import FRAME_RESERVE, PublishGroup
from minibroker.session.route_groups import RouteGroup, routed_of
from minibroker.session.settlements import BEGUN, ENDED, Run, Settlement, SettlePart, runs_of

SMALL_PARTS: Final = 16  # the header of so many fits into what a header may have, whatever they say

# The messages that a step acks, each with its completion where it has a result.
Acked = Mapping[MessageData[Any], Settlement | None]


class StepFrame:
    """One step as it is written, and written again; iterated, it gives the parts that end messages."""

    __slots__ = (
        "_claimed", "acks", "deadline_ms", "groups", "refusal", "refusals", "size", "slot", "until_ms",
        "waiter", "whole_ms",
    )  # fmt: skip

    def __init__(self, acked: Acked, groups: Sequence[PublishGroup]) -> None:
        self.acks = _parts_of(acked)
        self.groups = groups
        self.size = sum(group.cost + FRAME_RESERVE for group in groups)  # bytes, at most
        self.size += len(acked) * (wire.RUN.size + STRING_BYTES) + limits.MAX_HEADER_BYTES
        self.size += sum(len(done.error_text) for done in acked.values() if done is not None)
        self.waiter: Any = None
        self.deadline_ms = self.whole_ms = self.slot = 0
        self.until_ms = 0  # it is not written before that
        self.refusal: Exception | None = None  # why it waits to be written again
        self.refusals = 0
        self._claimed: list[tuple[MessageData[Any], int]] = []  # and the state that they had

    def __iter__(self) -> Iterator[SettlePart]:
        return iter(self.acks)

    def messages(self) -> list[MessageData[Any]]:
        """Return the messages that it acks."""
        return [message for part in self.acks for message in part.messages]

    def claim(self) -> None:
        """Take its messages from the application; LeaseLost, and none is taken, if one is not there any more."""
        messages = self.messages()
        for message in messages:
            if message.state == ENDED:
                raise message.lost_error()
        for message in messages:
            self._claimed.append((message, message.state))
            message.state = ENDED

    def give_back(self) -> list[MessageData[Any]]:
        """Nothing of it was done: return the messages that are the application's again."""
        claimed, self._claimed = self._claimed, []
        back = []
        for message, state in claimed:
            if message.lost:
                message.run.delivery.open -= 1
                continue
            message.state = state
            if state == BEGUN:  # the begin that waited for it may have been passed over
                message.run.settlements.begins.append(message)
                message.run.settlements.owe()
            back.append(message)
        return back

    def end(self) -> None:
        """All of it was done, or nobody will know: its messages are over."""
        claimed, self._claimed = self._claimed, []
        for message, _ in claimed:
            message.run.delivery.open -= 1

    def pack(self, sequence: int, answered_below: int) -> bytes:
        """Return the frame."""
        parts = [part.header() for part in self.acks]
        columns = [part.columns() for part in self.acks]
        lengths, blob, size = [], list[bytes](), 0
        for group in self.groups:
            part, own, sizes = group.part()
            parts.append(part)
            columns.append(own)
            lengths.append(sizes)
            blob += group.blob
            size += group.account()
        header = {"parts": parts, "sequence": sequence, "answered_below": answered_below}
        if not self.groups and len(self._claimed) > 1:
            header["step"] = 1  # acks alone would settle what they can
        return b"".join(wire.frame_pieces(header, b"".join(columns), b"".join(lengths), blob, size))

    def check(self, max_frame_bytes: int) -> None:
        """Raise TooLarge if no frame can have all of it."""
        count = len(self.acks) + len(self.groups)
        if count > limits.MAX_PARTS_PER_FRAME:
            raise TooLarge(
                f"a step of {count} parts exceeds {limits.MAX_PARTS_PER_FRAME}: one for each queue of its acks,"
                " and for each that it publishes to with the same terms"
            )
        messages = sum(len(part.messages) for part in self.acks)
        if messages > limits.MAX_RUNS_PER_FRAME:
            raise TooLarge(
                f"a step acks at most {limits.MAX_RUNS_PER_FRAME} messages; these are {messages}"
            )
        if self.size > max_frame_bytes:
            raise TooLarge(f"a step of up to {self.size} bytes exceeds {max_frame_bytes}")
        if count > SMALL_PARTS or any(type(group) is not PublishGroup for group in self.groups):
            parts = [part.header() for part in self.acks] + [
                group.part()[0] for group in self.groups
            ]
            size = len(
                wire.pack_header({"parts": parts, "sequence": 2**62, "answered_below": 2**62})
            )
            if size > limits.MAX_HEADER_BYTES:
                raise TooLarge(
                    f"what a step says of its queues takes {size} bytes, and {limits.MAX_HEADER_BYTES} are allowed"
                )

    def confirms(
        self, results: Sequence[Mapping[str, Any]], known: Sequence[Run] = ()
    ) -> list[ConfirmRun | RoutedRun]:
        """Return what the results of its parts say of each group; `known` are their entries of the run column."""
        confirms: list[ConfirmRun | RoutedRun] = []
        at = 0
        for group, result in zip(self.groups, results[len(self.acks) :], strict=True):
            count = result.get("known", 0) or result.get("routed", 0)
            some = known[at : at + count]
            at += count
            if isinstance(group, RouteGroup):
                confirms.append(routed_of(result, some, group.count))
                continue
            own = known_of(some) if some else None
            told = result["origin"], result["first"], group.count, result["durability"]
            confirms.append(ConfirmRun(*told, own))
        return confirms


def _parts_of(acked: Acked) -> list[SettlePart]:
    """Return the parts that end these messages: one for each queue, and for how long results are kept there."""
    parts: dict[tuple[str, int | None], SettlePart] = {}
    for message, done in acked.items():
        value = None if done is None else done.value
        part = parts.get((message.queue, value))
        if part is None:
            op = "ack" if done is None else done.op
            part = parts[message.queue, value] = SettlePart(op, message.queue, [], value)
        part.messages.append(message)  # type: ignore[attr-defined]
        if done is not None:
            part.runs.append((message.token, message.origin, message.sequence, 1))
            part.errors.append((b"", done.error_text))
    for part in parts.values():
        part.runs = part.runs or runs_of(part.messages)
    return list(parts.values())
