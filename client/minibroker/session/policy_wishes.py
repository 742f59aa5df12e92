"""Policies and limits as an application asks for them, and as the server shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minibroker.contract import limits
from minibroker.contract.errors import BadName, BadValue
from minibroker.contract.settings import Settings
from minibroker.session.declaring import checked
from minibroker.session.spans import of_type, whole
from minibroker.session.wishes import Wish, utf8


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy, or, if `operator`, a limit: `settings` of all queues whose names fit `pattern`.

    `set_aside` says why it holds for no queue: an older server took it, and this one does not. Else it is empty.
    """

    name: str
    pattern: str
    settings: Settings
    priority: int
    operator: bool
    set_aside: str = ""


def put(
    name: str,
    pattern: str,
    settings: Mapping[str, int | str],
    priority: int,
    *,
    operator: bool,
) -> Wish:
    """Return the wish for a policy; TypeError, BadName, BadValue if it can be none."""
    of_type("pattern", pattern, str, "a str")
    size = len(utf8(pattern, BadValue))
    if not 0 < size <= limits.MAX_QUEUE_NAME_CHARS + len(limits.DLQ_SUFFIX):
        raise BadValue(f"a pattern of {size} bytes; it must have 1 to 128")
    fields = _named(name, operator=operator) | {
        "pattern": pattern,
        "settings": checked(settings),
        "priority": whole("priority", priority, 0, limits.MAX_POLICY_PRIORITY),
    }
    return "policy_set", fields, b""


def delete(name: str, *, operator: bool) -> Wish:
    """Return the wish to end a policy; TypeError, BadName if that is no name."""
    return "policy_delete", _named(name, operator=operator), b""


def every() -> Wish:
    """Return the wish to see all of them."""
    return "policies", {}, b""


def read(value: Mapping[str, Any]) -> Policy:
    """Return a policy out of an answer."""
    return Policy(
        value["name"],
        value["pattern"],
        dict(value["settings"]),
        value["priority"],
        bool(value["operator"]),
        value.get("set_aside", ""),
    )


def read_all(value: Mapping[str, Any]) -> list[Policy]:
    """Return all policies out of an answer, the limits behind the others."""
    return [read(each) for each in value["policies"]]


def _named(name: str, *, operator: bool) -> dict[str, object]:
    of_type("name", name, str, "the name of a policy, a str")
    size = len(utf8(name, BadName))
    if not 0 < size <= limits.MAX_QUEUE_NAME_CHARS:
        raise BadName(
            f"a policy name of {size} bytes; it must have 1 to {limits.MAX_QUEUE_NAME_CHARS}"
        )
    return {"name": name, "operator": int(operator)}
