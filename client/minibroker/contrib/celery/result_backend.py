"""minibroker as the result backend of Celery: `result_backend = "minibroker://localhost:7272"`.

What Celery keeps under keys in Redis is here in a queue that nobody consumes (named_values.py), and what it waits
for the server tells (waiting.py). Chords are counted in queues of their own (chords.py).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Final

from celery import states
from celery.backends.asynchronous import AsyncBackendMixin
from celery.backends.base import BaseKeyValueStoreBackend
from celery.exceptions import ImproperlyConfigured
from kombu.utils.encoding import bytes_to_str, ensure_bytes

from minibroker import sync
from minibroker.contract.errors import TooLarge
from minibroker.contrib.celery.chords import Chords
from minibroker.contrib.celery.named_values import NamedValues
from minibroker.contrib.celery.names import name_of
from minibroker.contrib.celery.too_large import ResultTooLarge, shortened_meta
from minibroker.contrib.celery.waiting import ResultConsumer, is_passing
from minibroker.sync.broker import Broker

QUEUE: Final = "celery-results"
OPTIONS: Final = ("ca", "client_cert", "client_key", "server_name", "token", "timeout")

_clients: weakref.WeakValueDictionary[tuple[Any, ...], Broker] = weakref.WeakValueDictionary()
_backends: weakref.WeakSet[MinibrokerBackend] = weakref.WeakSet()
_opening = threading.Lock()


class MinibrokerBackend(Chords, AsyncBackendMixin, BaseKeyValueStoreBackend):
    """What `result_backend = "minibroker://..."` leads to."""

    ResultConsumer = ResultConsumer
    key_t = staticmethod(bytes_to_str)
    supports_autoexpire = True
    supports_native_join = True
    supports_result_compression = True
    supports_failure_expires = True

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app, url=url, **kwargs)
        self.options: Mapping[str, Any] = app.conf.get("result_backend_transport_options") or {}
        expires = app.conf.get("result_failure_expires")
        self.failure_expires = self.expires if expires is None else self.prepare_expires(expires)
        if url is None or ";" in url:
            raise ImproperlyConfigured(
                f"result_backend must be the URL of one broker, as minibroker://host; it is {url!r}"
            )
        self._broker: Broker | None = None
        self._keeping: NamedValues | None = None
        self.result_consumer = self.ResultConsumer(
            self, self.app, self.accept, self._pending_results, self._pending_messages
        )
        _backends.add(self)

    # ---- the client ----

    @property
    def broker(self) -> Broker:
        """The client, which all backends of this process on one URL share; it connects with its first call."""
        if self._broker is None or self._broker._driver.machine.closed is not None:
            self._keeping = None
            said = {name: self.options[name] for name in OPTIONS if name in self.options}
            key = (self.url, *sorted(said.items()))
            with _opening:
                broker = _clients.get(key)
                if broker is None or broker._driver.machine.closed is not None:
                    broker = _clients[key] = sync.connect(self.url, lazy=True, **said)
            self._broker = broker
        return self._broker

    @property
    def keeping(self) -> NamedValues:
        """What results and groups are kept in."""
        broker = self.broker  # another one, if whoever shared it has closed it
        if self._keeping is None:
            queue = name_of(self.options.get("queue", QUEUE))
            durability = self.options.get("durability", "sync")
            self._keeping = NamedValues(broker, queue, durability)
        return self._keeping

    def close(self) -> None:
        """Leave, and with it all backends of this process on the same URL; the next call connects again."""
        broker, self._broker, self._keeping = self._broker, None, None
        self.result_consumer.on_after_fork()
        if broker is not None:
            broker.close()

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Return whether to try again, where `result_backend_always_retry` asks for that."""
        return is_passing(exc)

    # ---- keys and values ----

    def get(self, key: str) -> bytes | None:
        """Return what is kept under a key."""
        return self.keeping.get(key)

    def mget(self, keys: Iterable[str]) -> list[bytes | None]:
        """Return what is kept under each key."""
        return [self.keeping.get(key) for key in keys]

    def set(self, key: str, value: Any) -> None:
        """Keep a value under a key; ResultTooLarge if it is."""
        self._set_with_state(key, value, states.SUCCESS)

    def _set_with_state(self, key: str, value: Any, state: str) -> None:
        try:
            self.keeping.put(key, ensure_bytes(value), self._kept(state))
        except TooLarge as error:
            raise ResultTooLarge.of(error) from error

    def delete(self, key: str) -> None:
        """Keep nothing under a key."""
        self.keeping.forget(key)

    def _kept(self, state: str) -> float | None:
        seconds = self.failure_expires if state == states.FAILURE else self.expires
        return max(1.0, float(seconds)) if seconds else None

    def _store_result(
        self,
        task_id: Any,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Keep what a task is at; that it has succeeded stays, whatever a second run of it says."""
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = bytes_to_str(task_id)
        key = self.get_key_for_task(task_id)
        try:
            self._store(key, meta, state)
        except TooLarge as error:
            if state not in self.EXCEPTION_STATES:
                raise ResultTooLarge.of(error) from error
            self._store(key, shortened_meta(self, meta), state)
        return result

    def _store(self, key: str, meta: dict[str, Any], state: str) -> None:
        data, kept = ensure_bytes(self.encode(meta)), self._kept(state)
        found = self.keeping.put_first(key, data, kept)
        if found is None:
            return
        if found.value is not None and self.decode(found.value)["status"] == states.SUCCESS:
            return
        self.keeping.put(key, data, kept)

    def forget(self, task_id: str) -> None:
        """Keep nothing of a task, and wait for it no more."""
        super().forget(task_id)
        self.result_consumer.cancel_for(task_id)

    # ---- forks and pickles ----

    def _after_fork(self) -> None:
        for mapping in self._pending_results:
            mapping.clear()
        self._pending_messages.clear()
        self._pending_messages.total = 0
        self.result_consumer._after_fork()

    def __reduce__(self, args: Any = (), kwargs: Any = None) -> Any:
        return super().__reduce__(
            args, {**(kwargs or {}), "expires": self.expires, "url": self.url}
        )


def _after_fork() -> None:
    for backend in list(_backends):
        backend._after_fork()


os.register_at_fork(after_in_child=_after_fork)
