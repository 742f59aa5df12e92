"""The table of all paths of the HTTP port: method, path, what it needs, who answers, what it takes and gives.

The application serves these rows; the OpenAPI document is printed from them, and so is the list in the docs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from minibrokerd.http import (
    deadletters,
    event_stream,
    exchanging,
    explaining,
    holders,
    keying,
    live,
    log_groups,
    log_level,
    messages,
    monitoring,
    openapi,
    pages,
    queues,
    recent,
    resting,
    results,
    rules,
    sessions,
    shapes,
    signing,
    timetable,
)
from minibrokerd.http.gate import Need
from minibrokerd.http.probes import alive, metrics, overview, ready
from minibrokerd.http.requests import Ask
from minibrokerd.monitoring.readings import Readings

COUNT: Final = {"count": "Most rows to show."}
AFTER: Final = {"after": "`next` of the list before."}


@dataclass(frozen=True, slots=True)
class Row:
    """One path. Printed as one row of docs/operating.md; below /api, as an operation of the OpenAPI document."""

    method: str
    path: str
    need: Need
    meaning: str
    answer: Callable[[Ask], Awaitable[Any]]  # a response, or what becomes JSON
    gives: Any = None
    takes: Any = None
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_page(self) -> bool:
        """Whether it is for people."""
        return not self.path.startswith(("/api/", "/metrics", "/healthz", "/readyz"))


def _get(path: str, meaning: str, answer: Any, gives: Any = None, **query: str) -> Row:
    return Row("GET", path, Need.READ, meaning, answer, gives, query=query)


def _change(
    method: str, path: str, meaning: str, answer: Any, gives: Any, takes: Any = None, **query: str
) -> Row:
    return Row(method, path, Need.CHANGE, meaning, answer, gives, takes, query)


OPEN: Final = (
    Row(
        "GET",
        "/healthz",
        Need.NOTHING,
        "200 while the event loop turns, while it recovers and drains too",
        alive,
    ),
    Row(
        "GET",
        "/readyz",
        Need.NOTHING,
        "200 when the broker takes work; 503 with a reason while it does not",
        ready,
    ),
    Row("GET", "/metrics", Need.READ, "all numbers, for Prometheus and OpenMetrics", metrics),
)
API: Final = (
    _get("/api/v1/openapi.json", "this API as an OpenAPI document", openapi.document),
    _get("/api/v1/overview", "the broker in numbers", overview, shapes.Overview),
    _get(
        "/api/v1/readings",
        "the numbers that `minibroker check` judges",
        monitoring.list_readings,
        Readings,
        window="Seconds of the window that dead letters and syncs are counted in.",
        queues="Only of these queues: names or patterns with `*` and `?`, with commas between them.",
        skip="Not of these.",
    ),
    _get(
        "/api/v1/queues",
        "queues, by name or largest first",
        queues.list_queues,
        shapes.QueueList,
        **COUNT,
        after="`next` of the list before, in the same order.",
        match="Part of the name, or a pattern with `*` and `?`.",
        sort="`name`, `oldest`, or a number of `stats`: largest first.",
        dlqs="`0`: without dead-letter queues.",
    ),
    _get(
        "/api/v1/settings",
        "the settings of queues and what they mean",
        queues.list_settings,
        list[shapes.SettingView],
    ),
    _get(
        "/api/v1/queues/{queue}",
        "one queue, its numbers and settings",
        queues.show_queue,
        shapes.QueueView,
    ),
    _get(
        "/api/v1/queues/{queue}/holders",
        "who consumes a queue or has messages of it, those that have most first",
        holders.list_holders,
        shapes.HolderList,
        **COUNT,
    ),
    _get(
        "/api/v1/queues/{queue}/times",
        "how long messages wait and run, and how many handlers would be enough",
        queues.show_times,
        dict[str, Any],
        target_ms="Time within which what waits is to be done, in ms; five minutes, if not given.",
    ),
    _get(
        "/api/v1/queues/{queue}/keys",
        "the keys of a queue that have a weight, or are paused",
        keying.list_keys,
        keying.KeyList,
    ),
    _change(
        "PUT",
        "/api/v1/queues/{queue}/keys",
        "give a key a weight, pause it, or let it go on",
        keying.set_key,
        keying.KeyView,
        keying.NewKey,
    ),
    _get(
        "/api/v1/queues/{queue}/groups",
        "the groups of a retained log, where they are and how far behind",
        log_groups.list_groups,
        log_groups.GroupList,
    ),
    _change(
        "PUT",
        "/api/v1/queues/{queue}/groups/{group}",
        "make a group of a retained log, unless it is there",
        log_groups.make_group,
        log_groups.GroupView,
        log_groups.Place,
    ),
    _change(
        "POST",
        "/api/v1/queues/{queue}/groups/{group}/seek",
        "move a group to another place: replay",
        log_groups.move_group,
        log_groups.GroupView,
        log_groups.Place,
    ),
    _change(
        "PUT",
        "/api/v1/queues/{queue}/settings",
        "make a queue, or change settings of it",
        queues.set_queue,
        dict[str, int | str],
        dict[str, int | str],
    ),
    _change(
        "DELETE",
        "/api/v1/queues/{queue}",
        "end a queue and its dead-letter queue",
        queues.delete_queue,
        shapes.Done,
        force="`1`: with the messages that they have.",
    ),
    _change(
        "POST",
        "/api/v1/queues/{queue}/purge",
        "end messages: these, or all",
        messages.purge,
        shapes.Done,
        shapes.Select,
    ),
    _change(
        "POST",
        "/api/v1/queues/{queue}/cancel",
        "cancel messages: these, or those of a key, in a state, with a client; also those that workers have",
        messages.cancel,
        shapes.Done,
        shapes.Cancel,
    ),
    _get(
        "/api/v1/queues/{queue}/messages",
        "messages as they lie there",
        messages.list_messages,
        shapes.MessageList,
        **COUNT,
        **AFTER,
        state="`ready`, `delayed`, `held` or `begun`.",
        order="`due`: the delayed ones, by when they are due.",
    ),
    _change(
        "POST",
        "/api/v1/queues/{queue}/messages",
        "store a message",
        messages.publish_message,
        shapes.Stored,
        shapes.NewMessage,
    ),
    _get(
        "/api/v1/queues/{queue}/messages/{id}",
        "one message: body, headers, every attempt, who has it",
        messages.show_message,
        shapes.MessageView,
    ),
    _get(
        "/api/v1/messages/{id}",
        "one message, whichever queue it is in: as above, and its queue",
        messages.find_message,
        shapes.FoundMessage,
    ),
    _get(
        "/api/v1/queues/{queue}/messages/{id}/explain",
        "why a message is not running, since when, and what lets it go on",
        explaining.explain_message,
        shapes.Explained,
    ),
    _get(
        "/api/v1/messages/{id}/explain",
        "likewise, whichever queue it is in",
        explaining.explain_found,
        shapes.Explained,
    ),
    _get(
        "/api/v1/queues/{queue}/messages/{id}/result",
        "what a message came to, or how far it is; wait: for so many seconds, at most 60",
        results.show_result,
        shapes.ResultView,
    ),
    _change(
        "POST",
        "/api/v1/queues/{queue}/messages/{id}/retime",
        "let a message that waits be ready at another time",
        messages.retime_message,
        shapes.Done,
        shapes.Retime,
    ),
    _change(
        "DELETE",
        "/api/v1/queues/{queue}/messages/{id}",
        "end one message",
        messages.delete_message,
        shapes.Done,
    ),
    _change(
        "POST",
        "/api/v1/queues/{queue}/messages/{id}/requeue",
        "publish a message again, as it is or changed; the original stays",
        messages.requeue_message,
        shapes.Stored,
        shapes.Requeue,
    ),
    _get(
        "/api/v1/queues/{queue}/errors",
        f"what the messages of a dead-letter queue died of, up to {deadletters.MOST_GROUPS} groups of them",
        deadletters.list_errors,
        shapes.ErrorGroups,
    ),
    _change(
        "POST",
        "/api/v1/queues/{queue}/redrive",
        "send dead messages back: these, a group, the oldest, or all",
        deadletters.redrive,
        shapes.Done,
        shapes.Select,
    ),
    _change(
        "POST",
        "/api/v1/queues/{queue}/redrives",
        "let the server send dead messages back by itself: at a rate, after a canary",
        deadletters.start_redrive,
        shapes.RedriveState,
        shapes.NewRedrive,
    ),
    _get(
        "/api/v1/queues/{queue}/redrives",
        "how that stands, or ended within the last day",
        deadletters.show_redrive,
        shapes.RedriveState,
    ),
    _change(
        "DELETE",
        "/api/v1/queues/{queue}/redrives",
        "send no more of them",
        deadletters.stop_redrive,
        shapes.RedriveState,
    ),
    _change(
        "POST",
        "/api/v1/queues/{queue}/pause",
        "hand out nothing of a queue, for a time or until it is resumed",
        resting.pause_queue,
        resting.PauseView,
        resting.NewPause,
    ),
    _change(
        "DELETE",
        "/api/v1/queues/{queue}/pause",
        "let a queue go on",
        resting.resume_queue,
        resting.Resumed,
    ),
    _get(
        "/api/v1/pauses",
        "what is paused: queues, and workers",
        resting.list_pauses,
        resting.PauseList,
    ),
    _change(
        "POST",
        "/api/v1/workers/pause",
        "let workers get nothing, by name, below a version, or both",
        resting.pause_workers,
        resting.PauseView,
        resting.NewWorkerPause,
    ),
    _change(
        "DELETE",
        "/api/v1/workers/pause",
        "let workers go on",
        resting.resume_workers,
        resting.Resumed,
        worker="The name that was given; empty: those that were paused by their version alone.",
    ),
    _get(
        "/api/v1/exchanges",
        "exchanges, by name",
        exchanging.list_exchanges,
        exchanging.ExchangeList,
        **COUNT,
        **AFTER,
    ),
    _get(
        "/api/v1/exchanges/{exchange}",
        "one exchange, its numbers and bindings",
        exchanging.show_exchange,
        exchanging.ExchangeDetail,
        count="Most bindings to show.",
    ),
    _get("/api/v1/policies", "policies and limits", rules.list_policies, rules.PolicyList),
    _get(
        "/api/v1/schedules", "schedules, by name", timetable.list_schedules, timetable.ScheduleList
    ),
    _get(
        "/api/v1/schedules/{schedule}",
        "one schedule",
        timetable.show_schedule,
        timetable.ScheduleView,
    ),
    _change(
        "PUT",
        "/api/v1/schedules/{schedule}",
        "have a message published by a calendar, or change the schedule",
        timetable.set_schedule,
        timetable.ScheduleView,
        timetable.NewSchedule,
    ),
    _change(
        "DELETE",
        "/api/v1/schedules/{schedule}",
        "end a schedule",
        timetable.delete_schedule,
        timetable.Deleted,
    ),
    _change(
        "POST",
        "/api/v1/schedules/{schedule}/pause",
        "let a schedule publish nothing",
        timetable.pause_schedule,
        timetable.ScheduleView,
    ),
    _change(
        "POST",
        "/api/v1/schedules/{schedule}/resume",
        "let a schedule go on with its next time",
        timetable.resume_schedule,
        timetable.ScheduleView,
    ),
    _change(
        "POST",
        "/api/v1/schedules/{schedule}/run",
        "publish the message of a schedule now",
        timetable.run_schedule,
        shapes.Stored,
    ),
    _get(
        "/api/v1/sessions",
        "clients, those that hold most first",
        sessions.list_sessions,
        shapes.SessionList,
        **COUNT,
    ),
    _get(
        "/api/v1/sessions/{session}",
        "one client, and the messages that it has",
        sessions.show_session,
        shapes.Holding,
    ),
    _get(
        "/api/v1/events",
        "the newest events of the log",
        recent.list_events,
        shapes.EventList,
        after="`last` of the list before: only newer ones.",
    ),
    _get(
        "/api/v1/events/stream",
        "server-sent events: the events of the log as they happen, with ids for `Last-Event-ID`",
        event_stream.follow_events,
        after="Only events with a larger number.",
    ),
    _get(
        "/api/v1/log-level",
        "from which level on events are logged",
        log_level.show_level,
        shapes.LogLevel,
    ),
    _change(
        "PUT",
        "/api/v1/log-level",
        "log from another level on, until the next SIGHUP or start",
        log_level.set_level,
        shapes.LogLevel,
        shapes.NewLogLevel,
    ),
    _get(
        "/api/v1/live",
        "server-sent events: the overview, the rows of some queues and new events, every two seconds",
        live.stream,
        queues="Names of queues, with commas between them.",
        after="Only events with a larger number.",
    ),
)
PAGES: Final = (
    _get("/", "the page: queues", pages.show_queues),
    _get("/queues/{queue}", "one queue, its messages, its settings", pages.show_queue),
    _get("/queues/{queue}/messages/{id}", "one message", pages.show_message),
    _get("/queues/{queue}/errors", "dead messages by what they died of", pages.show_errors),
    _get("/schedules", "schedules", pages.show_schedules),
    _get("/exchanges", "exchanges", pages.show_exchanges),
    _get("/exchanges/{exchange}", "one exchange and its bindings", pages.show_exchange),
    _get("/policies", "policies and limits", pages.show_policies),
    _get("/clients", "clients and what they have", pages.show_clients),
    _get("/clients/{session}", "one client", pages.show_client),
    _get("/log", "the log and its disk", pages.show_log),
    _get("/events", "the newest events", pages.show_events),
    Row("GET", "/sign-in", Need.NOTHING, "where an operator gives the token", pages.show_sign_in),
    Row("POST", "/sign-in", Need.NOTHING, "takes the token, gives a cookie", signing.sign_in),
    Row("POST", "/sign-out", Need.NOTHING, "takes the cookie back", signing.sign_out),
    Row("GET", "/static/{file}", Need.NOTHING, "style, scripts, icon", pages.static),
)
ROUTES: Final = (*OPEN, *API, *PAGES)
