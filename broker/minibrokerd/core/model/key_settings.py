"""What is said of the keys of a queue: by its settings, and for single keys by a request, over restarts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from minibrokerd.core.model import key_circuits
from minibrokerd.core.model.circuits import has_circuit
from minibrokerd.core.model.kept import KEY, RATE
from minibrokerd.core.model.key import FOR_EVER_MS
from minibrokerd.core.model.keys import NO_RATE, NOTHING_SAID, Keys, Says, in_steps

if TYPE_CHECKING:
    from minibrokerd.core.model.queues import Queue
    from minibrokerd.core.model.state import Store

FORGET_LOOKS: Final = 2  # of `in_steps`, for a key for which something is set: that is a record


def arrange(store: Store, queue: Queue) -> None:
    """Have the group of a queue do what the settings of the queue say of keys and rates."""
    says = Says(
        queue.setting("key_concurrency"),
        _rate(queue, "key_rate"),
        _rate(queue, "rate"),
        queue.settings["key_on_dead"] == "block",
        has_circuit(queue, "key"),
    )
    if says != (queue.group.keys.says if queue.group.keys is not None else NOTHING_SAID):
        keys = keys_of(store, queue)
        key_circuits.arrange_key_circuits(store, queue, keys, wanted=says.breaks)
        keys.configure(says)


def keys_of(store: Store, queue: Queue) -> Keys:
    """Return what a queue knows of its keys, made now if need be."""
    group = queue.group
    if group.keys is None:
        group.use_keys(Keys(store, group))
    assert group.keys is not None
    return group.keys


class Setting(NamedTuple):
    """What is set for a key; times are those of the wall clock."""

    weight: int = 1
    paused_until_unix_ms: int = 0  # 0: it is not
    since_unix_ms: int = 0
    by: str = ""


def setting_of(store: Store, queue: Queue, name: str) -> Setting:
    """Return what is set for a key."""
    value = store.kept.get(store, KEY, (queue.number, name))
    return _read(store, value) if value is not None else Setting()


def settings_of(store: Store, queue: Queue) -> Iterator[tuple[str, Setting]]:
    """Yield the keys of a queue for which something is set."""
    names = queue.group.keys.names_set if queue.group.keys is not None else {}
    for name in list(names):
        value = store.kept.get(store, KEY, (queue.number, name))
        if value is not None:
            yield name, _read(store, value)
        else:
            del names[name]  # a pause that is over


def set_key(store: Store, queue: Queue, name: str, setting: Setting) -> None:
    """Let something be set for a key, over restarts, too."""
    key = queue.number, name
    if setting.weight == 1 and setting.paused_until_unix_ms <= store.unix_ms:
        if store.kept.find(store, KEY, key) is not None:  # else there is nothing to be recorded
            queue.last_batch = store.open_batch
        store.kept.end(store, KEY, key)
    else:
        over = setting.paused_until_unix_ms if setting.weight == 1 else 0
        over = over if over < FOR_EVER_MS else 0
        value = *setting[:3], setting.by.encode()
        store.kept.put(store, KEY, key, value, over)
        store.effects.wake = True
        queue.last_batch = store.open_batch
    _take_up(store, queue, name, setting)


def _take_up(store: Store, queue: Queue, name: str, setting: Setting) -> None:
    until = setting.paused_until_unix_ms
    left_ms = until - store.unix_ms if until < FOR_EVER_MS else FOR_EVER_MS
    keys_of(store, queue).put(name, setting.weight, store.now_ms + left_ms if left_ms > 0 else 0)


def _read(store: Store, value: tuple[int | bytes, ...]) -> Setting:
    weight, until, since, by = value
    assert isinstance(by, bytes)
    if int(until) <= store.unix_ms:  # a pause that is over
        return Setting(int(weight))
    return Setting(int(weight), int(until), int(since), by.decode())


def forget_all(store: Store, queue: Queue) -> None:
    """The queue ends: what was set for its keys goes with it, in steps; what its rates have taken ends by time."""
    keys = queue.group.keys
    assert keys is not None
    if keys.circuits is not None:
        keys.circuits.end()
    in_steps(store, _forgotten(store, queue.number, keys.names_set))


def _forgotten(store: Store, number: int, names: dict[str, None]) -> Iterator[int]:
    while names:
        store.kept.end(store, KEY, (number, names.popitem()[0]))
        yield FORGET_LOOKS


def opened(store: Store) -> None:
    """End a replay: what is kept of keys is theirs again."""
    for entry in list(store.kept.of(KEY)):
        number, name = entry.key
        queue = store.by_number.get(int(number))
        if queue is None:
            store.kept.forget(KEY, entry.key)  # it was deleted since
        else:
            _take_up(store, queue, str(name), _read(store, entry.value))
    for entry in list(store.kept.of(RATE)):
        number, name = entry.key
        queue = store.by_number.get(int(number))
        if queue is not None and queue.group.keys is not None:
            taken_to_ms = store.now_ms + int(entry.value[0]) - store.unix_ms
            queue.group.keys.recover(str(name), taken_to_ms)
    key_circuits.opened(store)


def _rate(queue: Queue, name: str) -> tuple[int, int, int]:
    count = queue.setting(name)
    more = queue.setting(f"{name}_period_ms"), queue.setting(f"{name}_burst")
    return (count, *more) if count else NO_RATE
