"""What a worker says, as lines on standard error: text, or JSON with the same fields.

A line for each success must not cost more than a handler that does little: those of one turn of the loop are made
by one loop over what ended, without the machinery of a logging library, and handed on in one piece.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, Final

from minibroker.aio.message import Message
from minibroker.aio.traced import TracedMessage
from minibroker.worker.following import Follows
from minibroker.worker.reporting import about, described
from minibrokerd.process import logs

LEVELS: Final = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning"}


class Lines:
    """A Report that writes through the outlet of `logs`; `logs.configure` was called before."""

    def __init__(self, format: str, level: str) -> None:
        says_done = logs.LEVELS[level] <= logging.INFO
        self.done: Callable[[Message[Any], float], object] | None = None
        if says_done:
            self.done = self._done
        self._render, self._with_trace = _text_line, _text_trace
        if format == "json":
            self._render, self._with_trace = _json_line, _json_trace
        self._ended: list[tuple[Message[Any], float]] = []
        self._soon = asyncio.get_running_loop().call_soon

    def _done(self, message: Message[Any], seconds: float) -> None:
        ended = self._ended
        if not ended:
            self._soon(self._write)
        ended.append((message, seconds))

    def _write(self) -> None:
        ended, self._ended = self._ended, []
        lines = self._render(logs.now(), ended)
        if isinstance(ended[0][0], TracedMessage):
            lines = list(map(self._with_trace, lines, ended))
        logs.write_lines(lines)

    def failed(
        self, message: Message[Any], seconds: float, error: BaseException, what: Follows
    ) -> None:
        """A handler failed; Report."""
        kind, text = described(error)
        fields = {**about(message), "ms": round(seconds * 1000, 1), "follows": what.text()}
        rejected = what.dead_letter and what.max_attempts != what.attempt
        self.event(
            "rejected" if rejected else "failed",
            logging.WARNING,
            **fields,
            error=kind,
            text=text,
            exc_info=None if rejected else error,
        )

    def event(self, name: str, level: int = logging.INFO, **fields: Any) -> None:
        """Something happened; Report."""
        say = getattr(logs.events, LEVELS.get(level, "error"))
        say(name, **{key: _plain(value) for key, value in fields.items()})


class ClientLog(logging.Handler):
    """Takes what the client library logs: that the broker is away and back, once each; the rest as it is.

    A line for each attempt to connect would say the same again.
    """

    def __init__(self, rest: logging.Handler) -> None:
        super().__init__()
        self._rest = rest

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record on; logging.Handler."""
        text, told = record.getMessage(), getattr(record, "told", "")
        if told == "again":
            logs.events.debug("library", logger=record.name, text=text)
        elif told == "away":
            logs.events.warning("broker_away", text=text)
        elif told == "differs":
            logs.events.warning("settings_differ", text=text)
        elif told == "back":
            logs.events.info("broker_back", text=text)
        else:
            self._rest.handle(record)


def listen_to_client() -> None:
    """Have the client's own log told as a worker's; `logs.configure` was called before."""
    logger = logging.getLogger("minibroker")
    logger.handlers = [ClientLog(logging.getLogger().handlers[0])]
    logger.propagate = False


def _plain(value: Any) -> Any:
    """Return a value of a field as one of the log; lists are told in one text."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _text_line(now: str, ended: list[tuple[Message[Any], float]]) -> list[str]:
    head = f"{now} info    done"
    return [
        f"{head} queue={message.queue} id={message.origin}-{message.sequence} "
        f"attempt={message.attempt} ms={seconds * 1000:.1f}"
        for message, seconds in ended
    ]


def _json_line(now: str, ended: list[tuple[Message[Any], float]]) -> list[str]:
    head = f'{{"time": "{now}", "level": "info", "event": "done", "queue": '
    names = {name: json.dumps(name) for name in {message.queue for message, _ in ended}}
    return [
        f'{head}{names[message.queue]}, "id": "{message.origin}-{message.sequence}", '
        f'"attempt": {message.attempt}, "ms": {seconds * 1000:.1f}}}'
        for message, seconds in ended
    ]


def _text_trace(line: str, ended: tuple[Any, float]) -> str:
    """Return a line with what names the span of its message; the span itself has ended by now."""
    trace_id, span_id = ended[0].work_ids
    return f"{line} trace_id={trace_id} span_id={span_id}" if trace_id else line


def _json_trace(line: str, ended: tuple[Any, float]) -> str:
    trace_id, span_id = ended[0].work_ids
    if not trace_id:
        return line
    return f'{line[:-1]}, "trace_id": "{trace_id}", "span_id": "{span_id}"}}'
