"""The line in which keys, and what has no key, take turns: a ring of links in its members.

Each can leave from any place in it at no cost, and stands in it for 16 bytes; an `OrderedDict` took about 120.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minibrokerd.core.model.lane import NO_SPANS, KeyLane, Lane
from minibrokerd.core.model.messages import NO_TERMS, Span

Member = Lane | Span  # a span that waits alone for its key stands in the line itself


class Turn:
    """Members in line, the first one as `behind`; a member that stands in none has None there."""

    __slots__ = ("before", "behind", "count")

    def __init__(self) -> None:
        self.before: Any = self
        self.behind: Any = self
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __contains__(self, member: Member) -> bool:
        return member.behind is not None

    def __iter__(self) -> Iterator[Member]:
        member = self.behind
        while member is not self:
            yield member
            member = member.behind

    def append(self, member: Member) -> None:
        """Let a member stand at the end, unless it stands in line."""
        if member.behind is not None:
            return
        last = self.before
        member.before, member.behind = last, self
        last.behind = self.before = member
        self.count += 1

    def leave(self, member: Member) -> None:
        """Take a member out, if it stands in line."""
        before, behind = member.before, member.behind
        if behind is None:
            return
        before.behind, behind.before = behind, before
        member.before = member.behind = None
        self.count -= 1

    def rotate(self) -> None:
        """Let the first one stand at the end; there is one."""
        first, last = self.behind, self.before
        if first is last:
            return
        second = first.behind
        self.behind, second.before = second, self
        last.behind, first.before = first, last
        first.behind, self.before = self, first

    def rotate_past(self, last: Member) -> None:
        """Let all up to a member stand at the end, in their order, that one as the last."""
        first, end = self.behind, self.before
        if end is last:
            return
        next = last.behind
        end.behind, first.before = first, end
        last.behind, self.before = self, last
        self.behind, next.before = next, self

    def give_round(
        self, singles: list[Span], most: int, most_bytes: int
    ) -> tuple[list[Member], int]:
        """Have each member give what is next of it, one message, as long as nothing of it came back.

        It goes to `singles`: up to `most`, about `most_bytes`, all of the same terms. Return who has no more, and
        has left the line, and how many bytes more may go. The line moves once, and not for each message.
        """
        gone: list[Member] = []
        member, last = self.behind, None
        terms = NO_TERMS
        for _ in range(min(most, self.count)):
            kind, fresh = type(member), NO_SPANS
            if kind is Span:
                span = member
            elif kind is KeyLane and not member.returned:
                fresh = member.fresh
                span = fresh[0]
            else:
                break
            block = span.block
            size = block.size if block.starts is None else block.bytes_of(span.first, span.stop)
            if span.stop - span.first != 1 or (singles and size > most_bytes):
                break
            if block.terms is not terms:
                if singles and terms.differ(block.terms):
                    break
                terms = block.terms
            singles.append(span)
            most_bytes -= size
            next = member.behind
            if len(fresh) > 1:  # so it is a deque
                fresh.popleft()
                last = member
            else:
                if fresh:
                    member.fresh = NO_SPANS
                self.leave(member)
                gone.append(member)
            member = next
        if last is not None:
            self.rotate_past(last)
        return gone, most_bytes

    def replace(self, old: Member, new: Member) -> None:
        """Let a member stand where another one stood, if that did."""
        before, behind = old.before, old.behind
        if behind is None:
            return
        new.before, new.behind = before, behind
        before.behind = behind.before = new
        old.before = old.behind = None


def oldest_ms_of(member: Member) -> int | None:
    """Return since when the oldest message of a member is ready (log time)."""
    return member.ready_at_ms if isinstance(member, Span) else member.oldest_ms
