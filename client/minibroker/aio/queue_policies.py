"""`broker.policies`: settings of queues by patterns of their names, and limits that nobody lifts."""

from __future__ import annotations

from typing import Any

from minibroker.aio.driver import Driver
from minibroker.session import policy_wishes
from minibroker.session.policy_wishes import Policy
from minibroker.session.spans import Span
from minibroker.session.wishes import Wish, timeout_ms


class Policies:
    """The policies of a server, and its limits; each kind has names of its own."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def set(
        self,
        name: str,
        pattern: str,
        *,
        priority: int = 0,
        operator: bool = False,
        timeout: Span | None = None,
        **settings: int | str,
    ) -> Policy:
        """Give settings to all queues whose names fit a pattern, now and later; or change the policy of that name.

            await broker.policies.set("short-lived", "tmp.*", message_ttl_ms=3_600_000)
            await broker.policies.set("bounded", "*", operator=True, max_messages=1_000_000)

        It holds at once, for queues that are there, too. What somebody chose for a queue (`Queue.set`, or the
        declaration that holds) goes before policies, and `Queue.set(unset=[...])` gives that up.

        Args:
            name: of the policy.
            pattern: of names of queues: `*` is any characters. One that ends with `.dlq` is about dead-letter
                queues, and no other one is.
            priority: of several that fit and say the same setting the one of the highest priority says it.
            operator: a limit: nobody, also no declaration, gets more than this. `max_messages`, `max_bytes`,
                `message_ttl_ms` and `delete_unused_ms` may have one; the smallest holds.
            timeout: deadline of this call.
            settings: as for `Queue.set`, but for `durability`.

        Raises:
            TypeError, BadName, BadValue: no such policy can be; the text says why.
            LimitReached: there are 200.
            NotAllowed: the token has not the right `admin`.
        """
        wish = policy_wishes.put(name, pattern, settings, priority, operator=operator)
        return policy_wishes.read(await self._ask(timeout, wish))

    async def list(self, *, timeout: Span | None = None) -> list[Policy]:
        """Return all policies by their names, and then all limits."""
        return policy_wishes.read_all(await self._ask(timeout, policy_wishes.every()))

    async def delete(
        self, name: str, *, operator: bool = False, timeout: Span | None = None
    ) -> bool:
        """End a policy, or a limit; return whether there was one. Queues have what the others say."""
        wish = policy_wishes.delete(name, operator=operator)
        return bool((await self._ask(timeout, wish))["deleted"])

    async def _ask(self, timeout: Span | None, wish: Wish) -> Any:
        op, fields, columns = wish
        within_ms = timeout_ms(timeout, self._driver.timeout_ms)
        return await self._driver.request(op, fields, within_ms, columns)
