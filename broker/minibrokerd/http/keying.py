"""The API of keys: what is set for single keys of a queue. A key is in the body: it may hold any letters."""

from __future__ import annotations

from datetime import datetime

import msgspec

from minibroker.session.key_wishes import KeyCircuit, KeySetting
from minibrokerd.http.requests import Ask, Failure
from minibrokerd.http.shapes import CircuitView


class KeyView(msgspec.Struct):
    """What is set for a key: its weight, and a pause; times of a pause are 0 where there is none.

    `circuit` is null while that of the key is closed, or there is none.
    """

    key: str
    weight: int
    paused: bool
    since_unix_ms: int
    resumes_unix_ms: int  # 0: until somebody resumes it
    by: str
    circuit: CircuitView | None


class KeyList(msgspec.Struct):
    """The keys of a queue whose circuit is open, or for which something is set, the first thousand."""

    keys: list[KeyView]


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """What a key is to be; what is left out stays as it is. `for_ms`: a pause of so long; 0: until a resume."""

    key: str
    weight: int | None = None
    paused: bool | None = None
    for_ms: int = 0


async def list_keys(ask: Ask) -> KeyList:
    """Return the keys of a queue whose circuit is open, or for which something is set."""
    return KeyList([_view_of(each) for each in await ask.client.queue(ask.queue_name).keys()])


async def set_key(ask: Ask) -> KeyView:
    """Give a key a weight, pause it, or let it go on."""
    wish = await ask.body(NewKey)
    if wish.weight is None and wish.paused is None:
        raise Failure(400, "bad_value", "say weight, paused, or both")
    if wish.for_ms < 0 or (wish.for_ms and not wish.paused):
        raise Failure(
            400, "bad_value", "for_ms is how long a pause is: paused must be true with it"
        )
    queue = ask.client.queue(ask.queue_name)
    found: KeySetting | None = None
    if wish.weight is not None:
        found = await queue.set_key_weight(wish.key, wish.weight)
    if wish.paused is not None:
        if wish.paused:
            found = await queue.pause_key(wish.key, wish.for_ms / 1_000 or None)
        else:
            found = await queue.resume_key(wish.key)
    assert found is not None
    ask.changed("set_key", queue=ask.queue_name, key=wish.key)
    return _view_of(found)


def _view_of(setting: KeySetting) -> KeyView:
    since, until = setting.since, setting.until
    return KeyView(
        setting.key,
        setting.weight,
        setting.paused,
        _unix_ms(since),
        _unix_ms(until),
        setting.by,
        _circuit_of(setting.circuit),
    )


def _circuit_of(circuit: KeyCircuit | None) -> CircuitView | None:
    if circuit is None:
        return None
    return CircuitView(circuit.state, circuit.why, _unix_ms(circuit.since), _unix_ms(circuit.until))


def _unix_ms(time: datetime | None) -> int:
    return 0 if time is None else round(time.timestamp() * 1_000)
