"""The API of policies: settings of queues by patterns of their names, and limits. It shows them."""

from __future__ import annotations

import msgspec

from minibrokerd.http.requests import Ask


class PolicyView(msgspec.Struct):
    """A policy, or, if `operator`, a limit; `set_aside` says why it holds for no queue, if it does not."""

    name: str
    pattern: str
    settings: dict[str, int | str]
    priority: int
    operator: bool
    set_aside: str


class PolicyList(msgspec.Struct):
    """All policies by their names, and then all limits."""

    policies: list[PolicyView]


async def list_policies(ask: Ask) -> PolicyList:
    """Return all policies and limits."""
    return PolicyList(
        [
            PolicyView(
                each.name,
                each.pattern,
                each.settings,
                each.priority,
                each.operator,
                each.set_aside,
            )
            for each in await ask.client.policies.list()
        ]
    )
