"""The log of the server for its operator: one event a line on standard error, as text or as JSON.

Each event has a name out of `EVENTS`, which stays the same over releases, and fields. There is an event when
something starts, ends or is refused, never for a message. Whatever a client sent may stand in a field, so every
string goes through `make_safe` on its way out, whoever logged it.

Nobody waits for whoever reads the log: a thread writes (`outlet.py`), and lines that find no room are lost and
counted. So a signal handler may log, and so may any thread.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

# structlog would import rich, which only the tables of the command line use. That is a quarter of all that a start
# imports (0.1 s of 0.45), and a start after a crash is one that somebody waits for.
_rich = sys.modules.get("rich")
sys.modules["rich"] = None  # type: ignore[assignment]
import structlog  # noqa: E402
from structlog.typing import FilteringBoundLogger  # noqa: E402

from minibroker.shell.tracing import current_ids  # noqa: E402
from minibrokerd.process.outlet import STDERR, Outlet  # noqa: E402

if _rich is None:
    del sys.modules["rich"]
else:
    sys.modules["rich"] = _rich

FORMATS: Final = ("text", "json")
LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
MAX_TEXT_CHARS: Final = 200
MAX_OWN_TEXT_CHARS: Final = 8_000
LAST_WORDS_S: Final = 0.25  # how long the end of the process waits for whoever reads the log

EVENTS: Final[Mapping[str, str]] = {
    "recovering": "the log is being read; `percent` of it so far, every two seconds",
    "directory_copied": "the data directory is a copy of another one; see `minibroker log restore`",
    "recovered": "the log was read; how much was found, and whether the last stop was clean",
    "started": "the server listens; version, address, data directory, limits and where they come from",
    "sessions_awaited": "queues wait, `until_ms` at most, for `sessions` that took from them before the start",
    "sessions_back": "all of them are back, `ms` after the start",
    "sessions_missing": "the time is over, and `sessions` of them never came: what they had goes to others",
    "http_started": "the HTTP port is open at `address`; `can_change`: there is a token for changes",
    "http_unavailable": "there is no HTTP port in this run; `text` says why, and what to do",
    "http_failed": "the HTTP port is gone; the broker goes on without it",
    "http_token_refused": "somebody gave a wrong token over HTTP; told at 1, 2, 4, ... `failures` of an address",
    "http_change": "somebody changed something over HTTP: `who`, from where (`peer`), and what (`action`)",
    "configuration_reloaded": "SIGHUP: the file was read again; `changed` holds now, the rest `after_restart`",
    "configuration_refused": "what was read again cannot be used; what held before still holds",
    "memory_limit_changed": "what bounds memory, as a control group, has another limit now; the server goes by it",
    "advertises_loopback": "clients would be sent to `address`, which others do not reach; `text` says what to do",
    "environment_ignored": "a variable was set for somebody else; `text` says which, and by whom",
    "start_refused": "the server cannot start; `code` is its exit code",
    "session_opened": "a client logged in, with a new session or one that goes on (debug)",
    "connection_closed": "a connection is gone (debug)",
    "connection_refused": "a peer broke the protocol, speaks another, or may not log in; it was told and closed",
    "connection_ended": "a connection was cut off, for `reason`",
    "events_repeated": "`count` more events `of` this name, like the last one of this `host` and `client`",
    "connections_full": "`turned_away` connections found no free descriptor since the last second",
    "certificates_loaded": "the files of --tls-cert and its like were read again; they hold for new connections",
    "certificates_refused": "those files have changed and cannot be used; what was read before stays",
    "key_is_open": "the file of --tls-key can be read by everybody on this machine",
    "tokens_loaded": "the file of tokens was read again; connections whose token is gone are cut off",
    "tokens_refused": "that file cannot be used; the tokens that were read before stay valid",
    "unencrypted": "the port is open to other machines without TLS",
    "queue_created": "a queue is there that was not; with its own settings (debug with `delete_unused_ms`)",
    "queue_changed": "a client changed settings of a queue",
    "queue_unused": "nobody used a queue for `delete_unused_ms`: it ended, with `messages` (a warning if some)",
    "consumer_active": "a queue with one active consumer: `client` has the turn now, `after` another one",
    "queue_left": "an exclusive queue ended with the session of `client`, with `messages` messages",
    "queue_ended": "a client deleted a queue and its DLQ, with `messages` messages",
    "group_made": "a client made a group of a retained log, which starts at `start`",
    "group_moved": "a client moved a group of a retained log to `start`; `messages` ended that it had",
    "group_missed": "a group of a retained log goes on at `first`; up to `messages` before that were not kept",
    "log_damaged": "up to `messages` in front of `before` could not be read for a group of a retained log",
    "archive_failed": "the files of a retained log took nothing; it is tried again, and nothing is lost",
    "retention_failed": "what a retained log has no longer to keep could not be deleted; it is tried again",
    "queue_purged": "a client ended messages of a queue: `messages` of them",
    "messages_redriven": "a client sent dead messages back: `messages` of them",
    "redrive_started": "a client began a redrive that goes on by itself",
    "redrive_ended": "it is done, or was stopped: `text` says why, `messages` were sent back",
    "messages_cancelled": "a client had messages cancelled, waiting or in work: `messages` of them",
    "messages_expired": "the time to live of messages was over before they began: of `messages` in 10 s",
    "messages_retimed": "a client had messages ready at another time: `messages` of them",
    "messages_moved": "a client moved messages to another queue: `messages` of them",
    "paused": "a client paused a queue, or workers by name (`worker`) and version (those `below` one)",
    "resumed": "such a pause is over: a client ended it, or its time has come",
    "worker_drained": "the deadline of a pause: `messages` that a paused worker still had went back",
    "key_changed": "a client set the weight of a key, paused it (`paused`=1) or let it go on",
    "schedule_set": "a client made or changed a schedule",
    "schedule_deleted": "a client deleted a schedule",
    "schedule_paused": "a client let a schedule rest",
    "schedule_resumed": "a client let a schedule go on",
    "schedule_run": "a client had the job of a schedule published now",
    "schedule_missed": "times of a schedule passed without a job, by its misfire policy; it is `ms` late",
    "schedule_waits": "the job of a schedule is due and cannot be published; `text` says why",
    "exchange_made": "a client made an exchange",
    "exchange_changed": "a client changed what an exchange does with what no binding takes",
    "exchange_deleted": "a client deleted an exchange, with its bindings",
    "schema_set": "a client gave a queue a schema, or took it away (0 `bytes`)",
    "schema_set_aside": "the schema of `queue` is none for this version: nothing can be published there; "
    "`text` says why",
    "retained_aside": "the files of a retained log that the log of the server does not know were kept at `path`",
    "policy_set": "a client made or changed a policy, or a limit (`kind`)",
    "policy_deleted": "a client deleted a policy, or a limit",
    "policy_set_aside": "a policy, or a limit (`kind`), is none for this version: it holds for no queue; "
    "`text` says why",
    "bound": "a client bound `exchange` to a queue, or to another exchange",
    "unbound": "a client ended such a binding",
    "dlq_full": "dead messages of `queue` wait there, delayed, for room in its dead-letter queue",
    "circuit_opened": "`queue` hands nothing out for a while: `text` says why",
    "circuit_closed": "`queue` hands messages out again",
    "key_circuits": "in 10 s so many circuits of keys of `queue` `opened` and `closed`, now so many are `open`; "
    "one of these is that of `key`, `text` says why",
    "dlq_has_room": "no dead message of `queue` waits for room any more",
    "queue_full": "a publish found no room in `queue`, which `holds` so much; its `overflow` says what follows",
    "queue_has_room": "a publish found `queue`, which was full, below 90 % of its limits",
    "queue_deleted": "a queue is gone, with the messages that it had (debug with `delete_unused_ms`)",
    "damage_found": "a sealed segment is not as it was written; its messages are set aside when they are read",
    "retained_cut": "so many `bytes` at the end of a retained log were not whole, as a crash leaves them: cut off",
    "retained_damage": "a retained log is not as it was written: messages `first` to `stop` are skipped, at most",
    "read_failed": "messages could not be read back from the log; it is tried again every second",
    "disk_full": "publishes are refused until there is space; acks go on",
    "disk_has_room": "publishes are taken again",
    "webhook_failed": "a call of the webhook at `address` failed, of this `type`; it is made again for 15 minutes",
    "webhook_dropped": "so many `calls` of the webhook will not be made, for `reason`",
    "standing_by": "another broker, at `active`, leads the log; this one follows until nothing is heard of it",
    "begins_again": "the log was trimmed faster than this broker could follow, standing by; it reads all of it",
    "waits_for_move": "a log is being moved here from `source`, and not all of it is here; this broker stands by",
    "takes_over": "this broker stood by and has claimed the log; `why`: `stopped`, or `silence` of whoever led",
    "stream_leader_moved": "`before`, a server of NATS on this machine, led the stream; `preferred` is to lead it",
    "log_denied": "NATS does not let this broker do what `text` says (docs/guide/cluster-operations.md)",
    "steps_down": "an operator asked the broker that leads to hand over; it stops, with exit code 74",
    "log_stalled": "the log takes nothing for now, and confirms wait: a disk, or a `stream`; `text` says why",
    "log_goes_on": "it takes appends again, `ms` after the one that waited",
    "spool_failed": "bodies could not be written to the spool at `path`; they are in the stream, and are fetched",
    "spool_goes_on": "bodies are written to the spool again",
    "spool_lacks": "bodies are not in the spool at `path`, or damaged there; they are fetched (said once)",
    "leads_unsurely": "for 3 s no append was acked, so another broker may lead; all `connections` were ended",
    "trim_failed": "what the replicated log has no longer to keep could not be purged; that is done later",
    "stopping": "a signal asked for a stop, or `minibroker cluster step-down` (`signal` is empty)",
    "signal_ignored": "a signal came that does not end the server, or means nothing to it",
    "continued": "the process had been stopped (SIGSTOP, Ctrl-Z) and goes on; leases ran on meanwhile",
    "drained": "all that was taken is safe and answered",
    "stopped": "the server is done; `code` is its exit code",
    "left_at_once": "the server ends without finishing, as after a crash",
    "log_failed": "the disk refused a write or a sync; the server ends",
    "fault": "an error of the server's own in the middle of a step; it is a bug, and the server ends",
    "loop_error": "an error that nobody handled, in a callback; it is a bug",
    "stray_error": "an error that nobody could handle, in a thread or a finalizer; it is a bug",
    "crashed": "an error that nobody handled; it is a bug, and the server ends",
    "lines_dropped": "nobody read this log: `lines_dropped` of its lines are missing, about here",
    "library": "what a library has to say, under `logger`",
}

Event = MutableMapping[str, Any]

# Called with each event that is written, its strings escaped and cut, in whatever thread it happens.
listener: Callable[[Mapping[str, Any]], object] | None = None


class OwnText(str):
    """A text of the server itself that an operator needs whole; it is escaped, but not cut to 200 characters."""

    __slots__ = ()


def configure(format: str = "text", level: str = "info", descriptor: int = STDERR) -> None:
    """Send all events from `level` on to `descriptor`, those of the standard library's logging too."""
    for method in LEVELS:
        vars(_output).pop(method, None)  # of `hand_to_logging`
    _output.render = render_json if format == "json" else render_text
    _output.outlet = Outlet(descriptor, _output.lost)
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[_Bridge()], force=True)
    set_level(level)


def set_level(level: str) -> None:
    """Write events from `level` on from now on: the configuration says so."""
    _output.configured = level
    hold_level(level)


def hold_level(level: str) -> None:
    """Write events from `level` on until the configuration is read again."""
    _output.level = LEVELS[level]
    logging.getLogger().setLevel(LEVELS[level])


def tells(level: str) -> bool:
    """Whether events of this level are written now."""
    return LEVELS[level] >= _output.level


def levels() -> tuple[str, str]:
    """Return the level that holds, and the one that the configuration says."""
    held = next(name for name, level in LEVELS.items() if level == _output.level)
    return held, _output.configured


def hand_to_logging(name: str) -> None:
    """Send all events to the logger of that name instead: the process is an application's, and so is its log."""
    logger = logging.getLogger(name)
    _output.level = LEVELS["debug"]
    _output.render = _render_bare
    for method, level in LEVELS.items():
        setattr(_output, method, partial(logger.log, level, "%s"))


def flush(seconds: float = LAST_WORDS_S) -> None:
    """Give whoever reads the log a moment to take what was said: the process ends."""
    _output.outlet.flush(seconds)


def write_lines(lines: Sequence[str]) -> None:
    """Write lines that are made already, as `render_text` or `render_json` would; nothing in them is escaped."""
    if lines:
        _output.outlet.write(_encoded("\n".join(lines)), len(lines))


def catch_stray_errors() -> None:
    """Log what Python would write to standard error by itself, waiting for whoever reads it: errors that
    nobody can handle any more, in threads and in finalizers."""

    def of_thread(args: threading.ExceptHookArgs) -> None:
        name = args.thread.name if args.thread is not None else ""
        events.error("stray_error", text=f"in the thread {name}", exc_info=args.exc_value)

    def of_finalizer(args: Any) -> None:
        text = args.err_msg or "in a finalizer"
        events.error("stray_error", text=text, exc_info=args.exc_value)

    threading.excepthook = of_thread
    sys.unraisablehook = of_finalizer


def make_safe(_: object, __: str, event: Event) -> Event:
    """Escape every string and cut it, so that no field can begin a line, colour a screen or fill a disk.

    Control characters, everything else that does not print, and the backslash itself are written as Python
    would write them. Nothing is ever formatted with what came from outside.
    """
    for name, value in event.items():
        if value is None or isinstance(value, int | float):
            continue
        text = value if isinstance(value, str) else str(value)
        most = MAX_OWN_TEXT_CHARS if isinstance(value, OwnText) else MAX_TEXT_CHARS
        rest = len(text) - most
        text = _escaped(text[:most])
        event[name] = f"{text}...(+{rest})" if rest > 0 else text
    return event


def render_json(_: object, __: str, event: Event) -> str:
    """Return an event as a JSON object: time, level, event, then its fields."""
    head = {"time": now(), "level": event.pop("level"), "event": event.pop("event")}
    return json.dumps(head | dict(event), ensure_ascii=False)


def render_text(_: object, __: str, event: Event) -> str:
    """Return an event as a line for people: time, level, event, then `name=value`."""
    return f"{now()} {event.pop('level'):<7} {event_words(event)}"


def _render_bare(_: object, __: str, event: Event) -> str:
    del event["level"]  # it is the record's
    return event_words(event)


def event_words(event: Event) -> str:
    """Return an event, its name first, as the words of a line; it is used up."""
    words = [str(event.pop("event"))]
    words += [f"{name}={_quoted(value)}" for name, value in event.items()]
    return " ".join(words)


def _escaped(text: str) -> str:
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(
        character
        if character.isprintable() and character != "\\"
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def _quoted(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if text and not set(text) & {" ", '"', "="}:
        return text
    return '"' + text.replace('"', '\\"') + '"'


def now() -> str:
    """Return the time of an event that happens now."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _add_traceback(_: object, __: str, event: Event) -> Event:
    error = event.pop("exc_info", None)
    if isinstance(error, BaseException):
        # The end says what happened and where; the middle of a recursion says nothing.
        text = "".join(traceback.format_exception(error))
        event["exception"] = OwnText(text[-MAX_OWN_TEXT_CHARS:])
    return event


def _add_trace(_: object, __: str, event: Event) -> Event:
    event.update(current_ids())  # in a worker, what a handler logs and how it failed
    return event


class _Output:
    """Hands lines to an outlet. A log that nobody takes does not stop the server."""

    def __init__(self) -> None:
        self.configured = "warning"  # where no server runs, as in a test, only what is wrong
        self.level = LEVELS[self.configured]
        self.render: Callable[[object, str, Event], str] = render_text
        self.outlet = Outlet(STDERR, self.lost)

    def select(self, _: object, method: str, event: Event) -> Event:
        if LEVELS[method] < self.level:
            raise structlog.DropEvent
        return event

    def line(self, logger: object, method: str, event: Event) -> str:
        if listener is not None:
            listener(event)
        return self.render(logger, method, event)

    def lost(self, count: int) -> bytes:
        event: Event = {"level": "warning", "event": "lines_dropped", "lines_dropped": count}
        return _encoded(self.render(None, "warning", event))

    def msg(self, line: str) -> None:
        self.outlet.write(_encoded(line))

    debug = info = warning = error = msg


def _encoded(line: str) -> bytes:
    return f"{line}\n".encode("utf-8", "backslashreplace")


_output = _Output()
events: FilteringBoundLogger = structlog.wrap_logger(
    _output,
    processors=[
        _output.select,
        structlog.processors.add_log_level,
        _add_traceback,
        _add_trace,
        make_safe,
        _output.line,
    ],
    wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
    cache_logger_on_first_use=True,
)


class _Bridge(logging.Handler):
    """Hands what libraries log through `logging` to the same output."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit their format: show it bare
            text = str(record.msg)
        error = record.exc_info[1] if record.exc_info else None
        say: Callable[..., Any] = events.error
        if record.levelno < logging.ERROR:
            say = events.warning if record.levelno >= logging.WARNING else events.info
        if record.levelno < logging.INFO:
            say = events.debug
        say("library", logger=record.name, text=text, exc_info=error)
