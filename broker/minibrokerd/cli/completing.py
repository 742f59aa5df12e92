"""What a shell may complete besides commands and flags: queues, messages, settings.

The server is asked within a short time; where it is away, or slow, there is nothing to complete, and not a word.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem

from minibroker.contract.errors import MinibrokerError
from minibroker.contract.limits import DLQ_SUFFIX
from minibroker.contract.settings import SETTINGS

if TYPE_CHECKING:
    from minibroker import sync

WITHIN_S: Final = 0.5  # to connect, and again for the answer: somebody waits for the shell
MOST: Final = 100  # messages that are offered

Ask = Callable[["sync.Broker"], list[str]]


def complete_queue(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of queues that begin with `incomplete`."""
    return _items(_asked(context, _names), incomplete)


def complete_source(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of queues that have dead messages."""
    names = set(_asked(context, _names))
    return _items([name for name in names if name + DLQ_SUFFIX in names], incomplete)


def complete_schedule(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of schedules that begin with `incomplete`."""

    def ask(broker: sync.Broker) -> list[str]:
        return [each.name for each in broker.schedules.list()]

    return _items(_asked(context, ask), incomplete)


def complete_exchange(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of exchanges that begin with `incomplete`."""

    def ask(broker: sync.Broker) -> list[str]:
        return [each.name for each in broker.exchanges()]

    return _items(_asked(context, ask), incomplete)


def complete_policy(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of policies and limits that begin with `incomplete`."""

    def ask(broker: sync.Broker) -> list[str]:
        return sorted({each.name for each in broker.policies.list()})

    return _items(_asked(context, ask), incomplete)


def complete_log(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of retained logs that begin with `incomplete`."""

    def ask(broker: sync.Broker) -> list[str]:
        rows = broker.stats()["queues"]
        return [name for name, row in rows.items() if "offsets" in row]

    return _items(_asked(context, ask), incomplete)


def complete_group(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of groups of the log that stands before them."""

    def ask(broker: sync.Broker) -> list[str]:
        return [each.name for each in broker.log(context.params["log"]).show().groups]

    return _items(_asked(context, ask), incomplete)


def complete_id(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the ids of messages of the queue that stands before them."""
    return _items(_ids(context, str(context.params.get("queue", ""))), incomplete)


def complete_dead_id(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the ids of dead messages of the queue that stands before them."""
    queue = str(context.params.get("queue", "")).removesuffix(DLQ_SUFFIX)
    return _items(_ids(context, queue + DLQ_SUFFIX), incomplete)


def complete_setting(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return settings as `name=`, or the values of one that has a few.

    bash makes three words of `name=value`: the equals sign is one by itself.
    """
    before = [*(context.params.get("settings") or ()), incomplete]
    if "=" in before[-2:]:
        name, word, prefix = before[before.index("=", len(before) - 2) - 1], incomplete, ""
        word = "" if word == "=" else word
    else:
        name, equals, _ = incomplete.partition("=")
        if not equals:
            return _items([f"{known}=" for known in SETTINGS], incomplete)
        word, prefix = incomplete, f"{name}="
    row = SETTINGS.get(name)
    return _items([prefix + value for value in row.choices] if row else [], word)


def _items(words: list[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in sorted(words) if word.startswith(incomplete)]


def _names(broker: sync.Broker) -> list[str]:
    return list(broker.stats()["queues"])


def _ids(context: click.Context, queue: str) -> list[str]:
    def ask(broker: sync.Broker) -> list[str]:
        return [str(message.id) for message in broker.queue(queue).peek(MOST)]

    return _asked(context, ask)


def _asked(context: click.Context, ask: Ask) -> list[str]:
    """Return what the server answers, nothing if it does not."""
    # Every command imports this module, and few are asked to complete anything.
    from minibroker import sync

    url = context.params.get("url") or os.environ.get("MINIBROKER_URL")
    try:
        with sync.connect(url, connect_timeout=WITHIN_S, timeout=WITHIN_S) as broker:
            return ask(broker)
    except (MinibrokerError, OSError, ValueError):
        return []
