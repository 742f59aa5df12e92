"""The API of exchanges: where what is published with a routing key goes. It shows them."""

from __future__ import annotations

from typing import Final

import msgspec

from minibrokerd.core.model.exchanges import Binding, Exchange, Exchanges
from minibrokerd.core.model.state import Store
from minibrokerd.http.requests import Ask, Failure

SHOWN: Final = 200
MOST: Final = 1_000


class ExchangeView(msgspec.Struct):
    """An exchange: `routed`, `dropped` and `refused` count messages since the start of the broker."""

    exchange: str
    type: str
    unroutable: str
    alternate: str
    bindings: int
    routed: int
    dropped: int
    refused: int


class ExchangeList(msgspec.Struct):
    """Exchanges by their names; `next` is the `after` of the page behind it, empty on the last one."""

    exchanges: list[ExchangeView]
    next: str


class BindingView(msgspec.Struct):
    """A way to a queue, or to another exchange; the other one is empty."""

    queue: str
    exchange: str
    pattern: str


class ExchangeDetail(msgspec.Struct):
    """An exchange, and bindings of it; `more`: it has others."""

    exchange: ExchangeView
    leads_to: list[BindingView]
    more: bool


async def list_exchanges(ask: Ask) -> ExchangeList:
    """Return exchanges behind a name."""
    known = _known(ask)
    most, after = ask.number("count", SHOWN, MOST), ask.text("after")
    names = [name for name in sorted(known.by_name) if name > after]
    shown = [_view(known.by_name[name]) for name in names[:most]]
    return ExchangeList(shown, names[most - 1] if 0 < most < len(names) else "")


async def show_exchange(ask: Ask) -> ExchangeDetail:
    """Return one exchange and its first bindings."""
    name = str(ask.request.path_params["exchange"])
    exchange = _known(ask).by_name.get(name)
    if exchange is None:
        raise Failure(404, "unknown_exchange", f"there is no exchange {name!r:.200}")
    most = ask.number("count", SHOWN, MOST)
    found = exchange.bindings.behind(Binding(0, 0, 0, ""), most)
    leads_to = [each for one in found if (each := _binding(ask.subject.store, one)) is not None]
    return ExchangeDetail(_view(exchange), leads_to, len(exchange.bindings) > len(found))


def _known(ask: Ask) -> Exchanges:
    if not ask.subject.is_open:
        raise Failure(503, "not_ready", ask.subject.not_ready)
    return ask.subject.store.exchanges


def _view(exchange: Exchange) -> ExchangeView:
    return ExchangeView(
        exchange.name,
        exchange.type,
        exchange.unroutable,
        exchange.alternate,
        len(exchange.bindings),
        *exchange.counts(),
    )


def _binding(store: Store, binding: Binding) -> BindingView | None:
    """Return a binding with names; None: what it leads to is about to end."""
    if binding.queue:
        queue = store.by_number.get(binding.queue)
        return None if queue is None else BindingView(queue.name, "", binding.pattern)
    target = store.exchanges.by_number.get(binding.target)
    return None if target is None else BindingView("", target.name, binding.pattern)
