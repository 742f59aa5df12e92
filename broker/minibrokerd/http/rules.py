"""The API of policies: settings of queues by patterns of their names, and limits. It shows them."""

from __future__ import annotations

import msgspec

from minibrokerd.http.requests import Ask


class PolicyView(msgspec.Struct):
    """A policy, or, if `operator`, a limit."""

    name: str
    pattern: str
    settings: dict[str, int | str]
    priority: int
    operator: bool


class PolicyList(msgspec.Struct):
    """All policies by their names, and then all limits."""

    policies: list[PolicyView]


async def list_policies(ask: Ask) -> PolicyList:
    """Return all policies and limits."""
    return PolicyList(
        [
            PolicyView(each.name, each.pattern, each.settings, each.priority, each.operator)
            for each in await ask.client.policies.list()
        ]
    )
