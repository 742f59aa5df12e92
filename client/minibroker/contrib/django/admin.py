"""The page of dead tasks in Django's admin: what each died of; those that are chosen go back, or are deleted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path

from minibroker.contract.confirms import MessageId
from minibroker.contract.errors import MinibrokerError, UnknownQueue
from minibroker.contract.limits import DLQ_SUFFIX
from minibroker.contrib.django.backend import MinibrokerBackend
from minibroker.contrib.django.interface import task_backends
from minibroker.contrib.django.models import DeadTask
from minibroker.contrib.django.task_records import loaded
from minibroker.session.peek import Peeked

PAGE: Final = 100
MOST_CHARS: Final = 300  # of arguments
TEMPLATE: Final = "admin/minibroker/dead_tasks.html"


@dataclass(frozen=True, slots=True)
class Row:
    """A dead task, as the page shows it."""

    id: str
    task: str
    args: str
    error: str
    text: str
    attempts: int
    died_at: datetime | None


@admin.register(DeadTask)
class DeadTaskAdmin(admin.ModelAdmin):
    """One page in the place of all those that a model with a table has."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody makes a dead task."""
        return False

    def get_urls(self) -> list[Any]:
        """Return the way to the page; staff alone comes so far."""
        view = self.admin_site.admin_view(self.dead_tasks)
        return [path("", view, name="minibroker_deadtask_changelist")]

    def dead_tasks(self, request: HttpRequest) -> HttpResponse:
        """Show the dead tasks of a queue, or do what is asked with those that are chosen."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = self.admin_site.each_context(request) | {
            "title": "Dead tasks",
            "opts": DeadTask._meta,
            "may_redrive": self.has_change_permission(request),
            "may_delete": self.has_delete_permission(request),
        }
        try:
            backends = dict(_backends())
            name = request.GET.get("queue", next(iter(backends), ""))
            if request.method == "POST" and name in backends:
                return self._act(request, backends[name].client.queue(name + DLQ_SUFFIX), context)
            context |= _seen(backends, name, request.GET.get("after", ""))
        except MinibrokerError as error:
            messages.error(request, f"The broker does not say: {type(error).__name__}: {error}")
        return TemplateResponse(request, TEMPLATE, context)

    def _act(self, request: HttpRequest, dead: Any, context: dict[str, Any]) -> HttpResponse:
        action = request.POST.get("action")
        if not context.get(
            {"redrive": "may_redrive", "delete": "may_delete"}.get(action or "", "")
        ):
            raise PermissionDenied
        ids = list(_ids(request.POST.getlist("ids")))
        if action == "delete" and ids and "sure" not in request.POST:
            context |= {"title": "Are you sure?", "sure_of": [str(each) for each in ids]}
            return TemplateResponse(request, TEMPLATE, context)
        if not ids:  # without any the broker would take all
            messages.warning(request, "No task was chosen.")
        elif action == "redrive":
            messages.success(request, f"{dead.redrive(ids)} of {len(ids)} are sent back.")
        else:
            messages.success(request, f"{dead.purge(ids)} of {len(ids)} are deleted.")
        return HttpResponseRedirect(request.get_full_path())


def _backends() -> Iterator[tuple[str, MinibrokerBackend]]:
    """Return the backend of each queue; one without QUEUES has all of its broker's."""
    for backend in task_backends.all():
        if isinstance(backend, MinibrokerBackend):
            for name in sorted(backend.queues) or _all(backend):
                yield name, backend


def _all(backend: MinibrokerBackend) -> Iterable[str]:
    names = backend.client.stats()["queues"]
    return sorted(name.removesuffix(DLQ_SUFFIX) for name in names if name.endswith(DLQ_SUFFIX))


def _seen(backends: dict[str, MinibrokerBackend], name: str, after: str) -> dict[str, Any]:
    counts = [(each, _count(backend, each)) for each, backend in backends.items()]
    known: dict[str, Any] = {"queues": counts, "queue": name, "rows": []}
    if dict(counts).get(name):
        dead = backends[name].client.queue(name + DLQ_SUFFIX)
        try:
            found = dead.peek(PAGE, after=bytes.fromhex(after))
        except ValueError:  # nobody gave this as the next page
            found = dead.peek(PAGE)
        known |= {"rows": [_row(each) for each in found], "next": found.next.hex()}
    return known


def _count(backend: MinibrokerBackend, name: str) -> int:
    dead = name + DLQ_SUFFIX
    try:
        counters = backend.client.queue(dead).stats()["queues"][dead]
    except UnknownQueue:
        return 0
    return int(counters["ready"])


def _row(found: Peeked) -> Row:
    try:
        record = loaded(found.raw)
        task, args = record["task"], [*map(repr, record.get("args", ()))]
        args += [f"{name}={value!r}" for name, value in record.get("kwargs", {}).items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # or it has no repr
        task, args = "", [repr(found.raw[:MOST_CHARS])]
    shown = _sayable(", ".join(args))
    last = found.history[-1] if found.history else {}
    ended_ms = last.get("ended_unix_ms")
    return Row(
        str(found.id),
        _sayable(task or ""),
        shown if len(shown) <= MOST_CHARS else f"{shown[:MOST_CHARS]}...",
        last.get("error_class") or last.get("cause", ""),
        last.get("error_text", ""),
        sum(found.attempts.values()),
        datetime.fromtimestamp(ended_ms / 1_000, UTC) if ended_ms else None,
    )


def _sayable(value: Any) -> str:
    """Return what is shown of a value: JSON may hold halves of characters, which no page can."""
    return str(value).encode(errors="backslashreplace").decode()


def _ids(texts: Iterable[str]) -> Iterator[MessageId]:
    for text in texts:
        try:
            yield MessageId.parse(text)
        except ValueError:
            continue
