"""Results: what an application says that a message came to, and what it hears of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from minibroker.contract import limits
from minibroker.contract.bodies import decode_body
from minibroker.contract.confirms import MessageId
from minibroker.contract.ends import ENDS
from minibroker.contract.errors import BadValue, MessageFailed, Timeout, TooLarge
from minibroker.contract.wire import pack_runs
from minibroker.session import typed
from minibroker.session.settlements import Settlement
from minibroker.session.spans import Span, milliseconds, of_type, shown
from minibroker.session.typed import Convert
from minibroker.session.wishes import Wish, runs_of

MSGPACK: Final = 1  # the encoding of every result


class Progress(NamedTuple):
    """How far the work on a message is, as its worker says: 0.0 to 1.0, and a note."""

    share: float
    note: str


def encoded(value: Any) -> bytes:
    """Return a result as it is sent: as bodies are, but bytes are a value as all others.

    Raises:
        TypeError: it can be none.
        TooLarge: it has too many bytes.
    """
    raw, encoding = typed.write_any(value)
    if not encoding:
        raw = msgspec.msgpack.encode(raw)
    if len(raw) > limits.MAX_RESULT_BYTES:
        text = f"a result of {len(raw)} bytes exceeds {limits.MAX_RESULT_BYTES}; return a reference instead"
        raise TooLarge(text)
    return raw


def kept_ms(kept: Span | None) -> int:
    """Return for how long to keep a result, in ms; 0: as the queue says."""
    return 0 if kept is None else milliseconds("kept", kept, limits.MAX_RESULT_MS, 1)


def completion(message: Any, value: Any, kept: Span | None) -> Settlement:
    """Return the settlement of a message that is done, with a result; say so if that will be kept for nobody."""
    delivery = message.run.delivery
    if kept is None and value is not None and not delivery.keeps_results:
        delivery.shell.not_kept(message)
    return Settlement("complete", message, kept_ms(kept), b"", encoded(value))


def progress(message: Any, share: float, note: str) -> Settlement:
    """Return what is said of how far the work on a message is.

    Raises:
        TypeError, BadValue: the share is no number from 0 to 1, or the note no str.
    """
    of_type("note", note, str, "a str")
    if isinstance(share, bool) or not isinstance(share, int | float):
        raise TypeError(f"share is {shown(share)}; it must be a number from 0 to 1")
    if not 0 <= share <= 1:
        raise BadValue(f"share is {share}; it must be a number from 0 to 1")
    text = note.encode(errors="replace")[: limits.MAX_NOTE_BYTES]
    return Settlement("progress", message, round(share * 1_000), b"", text)


class Asking:
    """The asking for one result, again and again while there is only progress."""

    def __init__(
        self,
        queue: str,
        id: MessageId,
        by_ms: int,
        wait: Span | None,
        convert: Convert | None,
        on_progress: Callable[[Progress], object] | None,
    ) -> None:
        """Begin; `by_ms` is the deadline, `wait` what is waited for at the server, None: until then."""
        self._queue = queue
        self._id = id
        self._runs = pack_runs(runs_of([id]))
        self._by_ms = by_ms
        self._wait_ms = None if wait is None else milliseconds("wait", wait, limits.MAX_WAIT_MS)
        self._convert = convert
        self._on_progress = on_progress
        self._mark = 0

    def next(self, now_ms: int) -> tuple[Wish, int]:
        """Return the wish to be asked now, and within how many ms it is to be answered."""
        left_ms = max(0, self._by_ms - now_ms)
        wait_ms = min(left_ms, limits.MAX_WAIT_MS) if self._wait_ms is None else self._wait_ms
        fields: dict[str, object] = {"queue": self._queue, "runs": 1, "wait_ms": wait_ms}
        if self._on_progress is not None:
            fields["mark"] = self._mark
        return ("result", fields, self._runs), left_ms

    def answered(self, answer: Mapping[str, Any]) -> bool:
        """Take an answer; return whether it is the last one. It may be one of progress.

        Raises:
            Timeout: there is no result, and what was to be waited is over.
        """
        if answer["state"] != "NONE":
            return True
        mark = answer.get("mark", 0)
        if self._on_progress is not None and mark != self._mark:
            self._mark = mark
            self._on_progress(Progress(answer["permille"] / 1_000, answer["note"]))
            return False
        raise Timeout(
            f"message {self._id} has come to nothing yet, or nothing is kept of it; `explain` says which"
        )

    def result(self, answer: Mapping[str, Any]) -> Any:
        """Return the result that the last answer has.

        Raises:
            MessageFailed: the message ended without one.
            BodyError: it does not fit the type that was asked for.
        """
        state = str(answer["state"])
        if state != "DONE":
            error_class, text = answer.get("error_class", ""), answer.get("error_text", "")
            error = ": ".join(filter(None, (error_class, text)))
            by = answer.get("by", "") or "a client without a name"
            end = ENDS.get(state)
            says = end.says if end is not None else f"ended as {state}"
            says = says.format(error=error or "it says no error", by=by)
            failed = MessageFailed(f"message {MessageId(*self._id)} {says}")
            failed.state, failed.error_class, failed.error_text = state, error_class, text
            failed.reason = end.reason if end is not None else ""
            raise failed
        raw = answer.get("result", b"")
        value = decode_body(raw, MSGPACK) if raw else None
        return value if self._convert is None else self._convert(value)
