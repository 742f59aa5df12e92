"""Publishes that come after others: what they wait for, as it is sent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from minibroker.contract import limits
from minibroker.contract.confirms import MessageId
from minibroker.contract.ends import IF_DEAD
from minibroker.contract.errors import BadValue, TooLarge
from minibroker.contract.wire import pack_runs
from minibroker.session.outbox import Key, PublishGroup
from minibroker.session.spans import shown
from minibroker.session.wishes import idle, runs_of

DEAD_LETTER: Final = IF_DEAD[0]


# Predecessors, what becomes of it, and what it cannot have: a unique key, a dedupe id.
Comes = tuple[Iterable[MessageId] | None, str, str | None, str | None]


def alone(comes: Comes) -> tuple[list[MessageId], bool, str]:
    """Return what one message of its own comes after, as a step has it.

    Raises:
        BadValue: it is to be unique, too; or it comes after none, so that `if_dead` would do nothing.
    """
    after, if_dead, *names = comes
    if after is None:
        raise idle("if_dead", if_dead, "after")
    if any(name is not None for name in names):
        raise BadValue(
            "what comes after others has no unique_key, and no dedupe_id; leave them out, or after"
        )
    return list(after), False, if_dead


class AfterGroup(PublishGroup):
    """One message that comes after others."""

    __slots__ = ("_after",)

    def __init__(
        self, where: Key, ids: Iterable[MessageId], *, of_step: bool, if_dead: str
    ) -> None:
        """Begin; `ids` are its predecessors, `of_step`: so is all that its step publishes before it.

        Raises:
            TypeError, BadValue: they are no ids, or none; `if_dead` is none of its values.
            TooLarge: there are too many.
        """
        super().__init__(where, 0)
        if if_dead not in IF_DEAD:
            raise BadValue(f"if_dead is {shown(if_dead)}; it must be one of {', '.join(IF_DEAD)}")
        named = list(ids)
        if not (named or of_step):
            raise BadValue("after names no message; leave it out, or name some")
        runs = pack_runs(runs_of(named)) if named else b""
        if len(named) > limits.MAX_AFTER or len(runs) > limits.MAX_AFTER_BYTES:
            raise TooLarge(
                f"a message waits for at most {limits.MAX_AFTER} others, in {limits.MAX_AFTER_BYTES} bytes of "
                f"runs; {len(named)} were named, in {len(runs)} bytes"
            )
        said = {"after": runs, "after_step": int(of_step)}
        said |= {"if_dead": if_dead} if if_dead != DEAD_LETTER else {}
        self._after = {name: value for name, value in said.items() if value}

    def part(self) -> tuple[dict[str, object], bytes, bytes]:
        """Return its part of a frame, which says what it waits for."""
        part, columns, lengths = super().part()
        return part | self._after, columns, lengths
