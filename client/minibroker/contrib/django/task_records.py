"""A task and its result as JSON: the body of a message, and what is kept of it, are the same record.

`task` is the path of the function, times are ISO 8601. A message needs no more of it than `task`.
"""

from __future__ import annotations

import json
from datetime import datetime
from traceback import format_exception
from typing import Any, Final

from django.utils import timezone
from django.utils.module_loading import import_string

from minibroker.contrib.django.interface import (
    TaskError,
    TaskResult,
    TaskResultStatus,
    normalize_json,
)

STRICT: Final = json.JSONEncoder(allow_nan=False)
SHORT: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
TIMES: Final = "enqueued_at", "started_at", "last_attempted_at", "finished_at"


def plain(value: Any) -> Any:
    """Return a value as it is behind a round trip through JSON, which a worker will have.

    Raises:
        TypeError: it is no such value, as with a method.
        ValueError: it is a NaN, an infinity, or bytes that are no text.
    """
    return json.loads(STRICT.encode(normalize_json(value)))


def write(result: Any) -> bytes:
    """Return the record of a TaskResult."""
    task = result.task
    record: dict[str, Any] = {
        "task": task.module_path,
        "id": result.id,
        "args": result.args,
        "kwargs": result.kwargs,
        "status": str(result.status),
        "queue_name": task.queue_name,
        "priority": int(task.priority),
        "run_after": _text(task.run_after),
        "worker_ids": result.worker_ids,
        "errors": [[error.exception_class_path, error.traceback] for error in result.errors],
        "return_value": result._return_value,
    }
    record |= {name: _text(getattr(result, name)) for name in TIMES}
    return SHORT.encode(record).encode()


def loaded(data: bytes) -> Any:
    """Return what JSON says, whoever wrote it; ValueError: it is none, or nests without end."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError(str(error)) from error


def read(data: bytes, backend: str, *, id: str = "", queue_name: str = "") -> Any:
    """Return the TaskResult that a record says, of the backend with this alias.

    `id` and `queue_name` are for a record that has none.

    Raises:
        ValueError, TypeError, KeyError: it is no record.
        ImportError: there is no such task.
    """
    record = loaded(data)
    task = import_string(record["task"])
    if not hasattr(task, "module_path"):
        raise ImportError(f"{record['task']} is no task")
    task = task.using(
        backend=backend,
        queue_name=record.get("queue_name", queue_name or None),
        priority=record.get("priority"),
        run_after=_time(record.get("run_after")),
    )
    result = TaskResult(
        task=task,
        id=record.get("id", id),
        status=TaskResultStatus(record.get("status", "READY")),
        args=record.get("args", []),
        kwargs=record.get("kwargs", {}),
        backend=backend,
        errors=[
            TaskError(exception_class_path=path, traceback=text)
            for path, text in record.get("errors", [])
        ],
        worker_ids=record.get("worker_ids", []),
        **{name: _time(record.get(name)) for name in TIMES},
    )
    change(result, _return_value=record.get("return_value"))
    return result


def refused(data: bytes, error: BaseException) -> tuple[str, bytes]:
    """Return the id in a record that cannot be read here, and the record as FAILED with this error.

    Raises:
        ValueError, TypeError, KeyError: it is no record, or has no id.
    """
    record = loaded(data)
    errors = [*record.get("errors", []), [path_of(error), "".join(format_exception(error))]]
    record |= {"status": "FAILED", "finished_at": _text(timezone.now()), "errors": errors}
    return record["id"], json.dumps(record).encode()


def path_of(error: BaseException) -> str:
    """Return the path of the class of an error, as TaskError has it."""
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}"


def change(result: Any, **values: Any) -> None:
    """Change a TaskResult, which is frozen for everybody else."""
    for name, value in values.items():
        object.__setattr__(result, name, value)


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
