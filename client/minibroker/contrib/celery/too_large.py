"""Results that are larger than the broker takes: the task fails, and whoever waits for it hears why."""

from __future__ import annotations

from typing import Any, Final

from celery.exceptions import BackendStoreError
from kombu.exceptions import EncodeError

SHORT_CHARS: Final = 2_000  # of what is left of an error


class ResultTooLarge(EncodeError, BackendStoreError):
    """What a task returned is larger than the broker takes: the task has failed, with this.

    It is an EncodeError, since of such alone Celery makes a failure of the task; any other error of a backend is
    one of the worker, and then nothing is stored for those who wait.
    """

    @classmethod
    def of(cls, error: Exception) -> ResultTooLarge:
        """Return it, with what the broker says."""
        return cls(f"the result is too large, keep it elsewhere and return its name: {error}")


def shortened(backend: Any, error: Any) -> Any:
    """Return what is kept of an error that is too large: its class, and the begin of its text.

    `error` is as the backend encodes it: a dict, or with pickle the error itself.
    """
    if isinstance(error, dict):
        said = error.get("exc_message", "")
        text = " ".join(map(str, said)) if isinstance(said, list | tuple) else str(said)
        return {**error, "exc_message": [text[:SHORT_CHARS]]}
    kind = type(error)
    short = {"exc_type": kind.__qualname__, "exc_module": kind.__module__}
    return backend.exception_to_python({**short, "exc_message": [str(error)[:SHORT_CHARS]]})


def shortened_meta(backend: Any, meta: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a task whose error, traceback, arguments or children are too large."""
    kept = {name: meta[name] for name in ("status", "date_done", "task_id")}
    traceback = str(meta.get("traceback") or "")[-SHORT_CHARS:] or None
    return {
        **kept,
        "result": shortened(backend, meta["result"]),
        "traceback": traceback,
        "children": [],
    }
