"""What a token may have and do: connections, queues, messages and bytes that wait, a rate. Pure: time comes in.

What waits is looked at twice a second, and what the token publishes in between is added to what was seen: acks can
only make it less. So a limit is never passed by those who have it, and no publish of others pays for the count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from minibroker.contract.limits import DLQ_SUFFIX
from minibrokerd.access.rights import Grant

LOOKS_A_STEP: Final = 2_000  # queues
SOON_MS: Final = 500  # when what waits is looked at again


class Counted(Protocol):
    """A queue, as far as it is counted."""

    name: str

    @property
    def log_bytes(self) -> int:
        """About how many bytes its messages keep in use."""
        ...

    def count(self) -> int:
        """How many messages it has."""
        ...


class Quota:
    """The account of one owner: all connections with his tokens share it."""

    def __init__(self, grant: Grant, now_s: float) -> None:
        self.grant = grant
        self.connections = 0
        self._level = float(grant.limits.rate)  # messages that may be published at once
        self._level_s = now_s
        self._is_known = False  # it was looked at
        self._seen = [0, 0, 0]  # queues, messages, bytes, at the last look
        self._since = [0, 0, 0]  # added by this owner since that look began

    @property
    def needs_looks(self) -> bool:
        """Whether anything of it is counted by looking."""
        limits = self.grant.limits
        return bool(limits.queues or limits.messages or limits.bytes)

    def may_connect(self) -> bool:
        """Whether one connection more is allowed."""
        most = self.grant.limits.connections
        return not most or self.connections < most

    def look(self, queues: Iterable[Counted]) -> Iterator[None]:
        """Count what there is, in steps between which others have their turn."""
        before, seen = list(self._since), [0, 0, 0]
        for at, queue in enumerate(queues, 1):
            if self.grant.covers(queue.name):
                seen[0] += not queue.name.endswith(DLQ_SUFFIX)
                seen[1] += queue.count()
                seen[2] += queue.log_bytes
            if not at % LOOKS_A_STEP:
                yield
        self._seen = seen
        self._since = [now - then for now, then in zip(self._since, before, strict=True)]
        self._is_known = True

    def may_publish(self, count: int, size: int, now_s: float) -> tuple[str, int]:
        """Take a publish into account; return why not, and after how many ms to try again; ("", 0): go on."""
        limits = self.grant.limits
        for at, most, added, what in (
            (1, limits.messages, count, "messages"),
            (2, limits.bytes, size, "bytes"),
        ):
            if most and not self._is_known:
                return f"the {what} of {self.grant.name!r} are being counted", SOON_MS
            has = self._seen[at] + self._since[at]
            if most and has + added > most:
                return (
                    f"{has} {what} wait in the queues of the token {self.grant.name!r}, which may have {most}",
                    SOON_MS,
                )
        if limits.rate:
            level = min(self._level + (now_s - self._level_s) * limits.rate, float(limits.rate))
            wanted = min(
                count, limits.rate
            )  # a frame may have more than a second's: it waits for all of that
            if level < wanted:
                wait_ms = max(1, round((wanted - level) / limits.rate * 1_000))
                return (
                    f"the token {self.grant.name!r} may publish {limits.rate} messages a second",
                    wait_ms,
                )
            self._level, self._level_s = level - count, now_s
        self._since[1] += count
        self._since[2] += size
        return "", 0

    def may_make(self, count: int = 1) -> str:
        """Take new queues into account; return why not, empty: they may be made."""
        most = self.grant.limits.queues
        if not most:
            return ""
        has = self._seen[0] + self._since[0]
        if self._is_known and has + count <= most:
            self._since[0] += count
            return ""
        return f"there are {has} queues of the token {self.grant.name!r}, which may have {most}"


class Quotas:
    """The accounts of all owners with limits."""

    def __init__(self) -> None:
        self._known: dict[str, Quota] = {}
        self._looks: list[Iterator[None]] = []

    def of(self, grant: Grant, now_s: float) -> Quota | None:
        """Return the account of an owner; None: he has no limits."""
        quota = self._known.get(grant.name)
        if quota is None and grant.limits.any:
            quota = self._known[grant.name] = Quota(grant, now_s)
        if quota is not None:
            # Of several tokens of one owner the newest login says, also that there is no limit.
            quota.grant = grant
        return quota

    def look(self, queues: Iterable[Counted]) -> bool:
        """Begin to count what waits, unless that is under way; return whether there is anything to be done."""
        if not self._looks:
            each = list(queues) if any(quota.needs_looks for quota in self._known.values()) else []
            self._looks = [quota.look(each) for quota in self._known.values() if quota.needs_looks]
        return bool(self._looks)

    def step(self) -> bool:
        """Go on with a look; return whether there is more."""
        if self._looks and next(self._looks[-1], self) is self:
            self._looks.pop()
        return bool(self._looks)

    def forget(self, live: Iterable[str]) -> None:
        """Forget the owners that have neither a token nor a connection any more."""
        names = set(live)
        for name, quota in list(self._known.items()):
            if name not in names and not quota.connections:
                del self._known[name]
