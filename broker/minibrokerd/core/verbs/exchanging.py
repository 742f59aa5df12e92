"""Requests about exchanges: made, shown, deleted, bound to queues and to each other. `routing` publishes to them.

The rights of a token are asked of names: those of exchanges as those of queues.
"""

from __future__ import annotations

from typing import Any

import msgspec

from minibroker.contract import limits
from minibroker.contract.exchange_commands import (
    EXCHANGE_TYPES,
    HASH,
    HEADERS,
    REFUSE,
    TOPIC,
    UNROUTABLE,
)
from minibrokerd.core.model.exchanges import Binding, Exchange, check_pattern
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.refusals import Refused, check_name, check_space
from minibrokerd.core.model.state import Store
from minibrokerd.core.verbs.unused import watch

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Binding).decode


def exchange_set(store: Store, frame: Frame, part: Any) -> None:
    """Make an exchange, or change what it does with what no binding takes."""
    check_name(part.name)
    _check_word("type", part.type, EXCHANGE_TYPES)
    if part.unroutable:
        _check_word("unroutable", part.unroutable, UNROUTABLE)
    if part.alternate and part.alternate not in store.exchanges.by_name:
        raise Refused(
            "unknown_exchange",
            f"there is no exchange {part.alternate!r:.200} that could be the alternate of {part.name!r:.200}; "
            "make it first, or correct its name",
        )
    known, exchange = store.exchanges, store.exchanges.by_name.get(part.name)
    if exchange is None:
        if len(known.by_name) >= limits.MAX_EXCHANGES:
            text = (
                f"this server has {limits.MAX_EXCHANGES} exchanges, as many as it can; delete some"
            )
            raise Refused("limit_reached", text)
        check_space(short=store.short)
        known.make(store, part.name, part.type, part.unroutable or REFUSE, part.alternate or "")
        _note(store, frame, "exchange_made", exchange=part.name, type=part.type)
    else:
        if exchange.type != part.type:
            raise Refused(
                "bad_value",
                f"the exchange {part.name!r} is of type {exchange.type}, and that cannot be changed; "
                "delete it first, or use another name",
            )
        unroutable = part.unroutable or exchange.unroutable
        alternate = exchange.alternate if part.alternate is None else part.alternate
        if (exchange.unroutable, exchange.alternate) != (unroutable, alternate):
            check_space(short=store.short)
            exchange.unroutable, exchange.alternate = unroutable, alternate
            known.write(store, exchange)
            _note(store, frame, "exchange_changed", exchange=part.name)
    _reply(store, frame, _told(known.by_name[part.name]) | {"created": int(exchange is None)})


def exchanges(store: Store, frame: Frame, part: Any) -> None:
    """Show exchanges, by their names."""
    if part.name:
        _reply(store, frame, {"exchanges": [_told(named(store, part.name))]})
        return
    scope = store.connections[frame.connection].scope
    names = [
        name
        for name in sorted(store.exchanges.by_name)
        if name > part.after and (scope is None or scope.covers(name))
    ]
    shown = names[: limits.MAX_LISTED]
    value: dict[str, Any] = {"exchanges": [_told(store.exchanges.by_name[name]) for name in shown]}
    if len(names) > len(shown):
        value["next"] = shown[-1]
    _reply(store, frame, value)


def exchange_delete(store: Store, frame: Frame, part: Any) -> None:
    """End an exchange."""
    exchange = store.exchanges.by_name.get(part.name)
    if exchange is not None:
        store.exchanges.end(store, exchange)
        _note(store, frame, "exchange_deleted", exchange=part.name)
    _reply(store, frame, {"deleted": int(exchange is not None)})


def bind(store: Store, frame: Frame, part: Any) -> None:
    """Let an exchange lead to a queue, which is made if need be, or to another exchange."""
    exchange = named(store, part.exchange)
    try:
        check_pattern(exchange.type, part.pattern)
    except ValueError as error:
        raise Refused("bad_value", str(error)) from error
    log, mark, _ = part.queue.partition(limits.GROUP_MARK)
    if mark and part.queue in store.queues:
        raise Refused(
            "bad_name",
            f"{part.queue!r:.200} is a group, and gets what its log does; bind the log {log!r:.200} instead",
        )
    binding = _binding(store, exchange, part)
    is_new = binding is None or binding not in exchange.bindings
    if is_new:
        _check_room(store, exchange, part.pattern)
        check_space(short=store.short)
        if binding is None:
            store.queue_or_new(part.queue)
            binding = _binding(store, exchange, part)
            assert binding is not None
        store.exchanges.bind(store, exchange, binding)
        _note(
            store,
            frame,
            "bound",
            exchange=part.exchange,
            to=part.queue or part.target,
            pattern=part.pattern,
        )
    assert binding is not None
    queue = store.by_number.get(binding.queue)
    if queue is not None and queue in store.sums.looked_after:
        watch(store, queue)
    _reply(store, frame, {"created": int(is_new)})


def _check_room(store: Store, exchange: Exchange, pattern: str) -> None:
    known = store.exchanges
    if exchange.type in (HEADERS, HASH) and len(exchange.bindings) >= limits.MAX_SCANNED_BINDINGS:
        raise Refused(
            "limit_reached",
            f"{exchange.name!r} has {limits.MAX_SCANNED_BINDINGS} bindings, as many as one of type "
            f"{exchange.type} may: each is looked at for each message. A topic exchange may have more",
        )
    if known.bindings >= limits.MAX_BINDINGS:
        text = f"this server has {limits.MAX_BINDINGS} bindings, as many as it can"
        raise Refused("limit_reached", f"{text}; a topic pattern may say what several do")
    if exchange.type == TOPIC and (
        known.nodes + exchange.topics.missing(pattern) > limits.MAX_TOPIC_WORDS
    ):
        raise Refused(
            "limit_reached",
            f"the topic patterns of this server have {known.nodes} words, about as many as they can; those that "
            "begin alike share theirs",
        )


def unbind(store: Store, frame: Frame, part: Any) -> None:
    """End a binding."""
    exchange = named(store, part.exchange)
    binding = _binding(store, exchange, part)
    is_there = binding is not None and binding in exchange.bindings
    if binding is not None and is_there:
        store.exchanges.unbind(store, binding)
        _note(
            store,
            frame,
            "unbound",
            exchange=part.exchange,
            to=part.queue or part.target,
            pattern=part.pattern,
        )
    _reply(store, frame, {"deleted": int(is_there)})


def bindings(store: Store, frame: Frame, part: Any) -> None:
    """Show the bindings of an exchange, a page at a time."""
    exchange = named(store, part.exchange)
    behind = Binding(0, 0, 0, "")
    if part.after:
        try:
            behind = _unpack(part.after)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refused("bad_value", f"after is no `next` of a page: {error}") from error
    found = exchange.bindings.behind(behind, limits.MAX_LISTED + 1)
    shown = found[: limits.MAX_LISTED]
    value: dict[str, Any] = {"bindings": [each for one in shown if (each := _told_of(store, one))]}
    if len(found) > len(shown):
        value["next"] = _pack(shown[-1])
    _reply(store, frame, value)


def named(store: Store, name: str) -> Exchange:
    """Return the exchange of a name.

    Raises:
        Refused: `unknown_exchange`.
    """
    exchange = store.exchanges.by_name.get(name)
    if exchange is None:
        raise Refused(
            "unknown_exchange",
            f"there is no exchange {name!r:.200}; `minibroker exchange list` shows those that there are",
        )
    return exchange


def _binding(store: Store, exchange: Exchange, part: Any) -> Binding | None:
    """Return what a request names; None: its queue is to be made first."""
    if bool(part.queue) == bool(part.target):
        raise Refused(
            "bad_value", "a binding leads to a queue or to an exchange: one of `queue` and `target`"
        )
    if part.target:
        return Binding(exchange.number, 0, named(store, part.target).number, part.pattern)
    if part.queue.endswith(limits.DLQ_SUFFIX):
        raise Refused("bad_name", f"{part.queue!r:.200} is a dead-letter queue; bind its source")
    queue = store.queues.get(part.queue)
    return None if queue is None else Binding(exchange.number, queue.number, 0, part.pattern)


def _check_word(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise Refused("bad_value", f"{name} is {value!r:.40}, none of {', '.join(known)}")


def _told(exchange: Exchange) -> dict[str, Any]:
    return {
        "name": exchange.name,
        "type": exchange.type,
        "unroutable": exchange.unroutable,
        "alternate": exchange.alternate,
        "bindings": len(exchange.bindings),
        "routed": exchange.routed,
        "unroutable_count": exchange.unroutable_count,
        "refused_count": exchange.refused_count,
    }


def _told_of(store: Store, binding: Binding) -> dict[str, str] | None:
    """Return what is said of a binding; None: what it led to is gone."""
    if binding.queue:
        queue = store.by_number.get(binding.queue)
        return (
            None
            if queue is None
            else {"queue": queue.name, "target": "", "pattern": binding.pattern}
        )
    target = store.exchanges.by_number.get(binding.target)
    return (
        None if target is None else {"queue": "", "target": target.name, "pattern": binding.pattern}
    )


def _note(store: Store, frame: Frame, event: str, **more: str) -> None:
    client = store.connections[frame.connection].session.client
    store.effects.note(event, client=client, connection=frame.connection, **more)


def _reply(store: Store, frame: Frame, value: dict[str, Any]) -> None:
    """Answer when what is said of exchanges is safe."""
    store.reply(frame.connection, frame.request, store.exchanges.last_batch, value)
