"""Print the tables of the documents again, from the tables that the code reads.

`make tables` (or `python docs/tables.py`) replaces what stands between the
markers `<!-- table: NAME -->` and `<!-- end -->`. A house rule fails while the two differ.
Names are those of `DOCUMENTS`; `command NAME` and `frame NAME` are one table for each operation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from struct import calcsize

from minibroker.contract import limits
from minibroker.contract.commands import (
    COLUMNS,
    COMMANDS,
    REQUIRED,
    Answer,
    Column,
    Command,
    Field,
    Kind,
)
from minibroker.contract.ends import ENDS
from minibroker.contract.errors import ERRORS
from minibroker.contract.metrics import METRICS
from minibroker.contract.reasons import REASONS
from minibroker.contract.server_frames import SERVER_FRAMES, ServerFrame
from minibroker.contract.settings import SETTINGS
from minibroker.contract.versions import PROTOCOL_VERSIONS, Version
from minibroker.worker.reporting import WORKER_EVENTS
from minibrokerd.access.rights import RIGHTS, Right
from minibrokerd.core.model.records import RECORD_TYPES
from minibrokerd.http.families import FAMILIES
from minibrokerd.http.routes import ROUTES
from minibrokerd.log.log_versions import LOG_VERSIONS
from minibrokerd.monitoring.checks import CHECKS
from minibrokerd.process.exits import CHECK_EXITS, EXITS, Exit
from minibrokerd.process.logs import EVENTS
from minibrokerd.process.stopping import SIGNALS

ROOT = Path(__file__).resolve().parents[1]
PROTOCOL = ROOT / "protocol.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
OPERATING = ROOT / "docs" / "operating.md"
MARKED = re.compile(r"(<!-- table: (?P<name>[^>]+) -->\n).*?(<!-- end -->)", re.DOTALL)

REPLIES = {"reply", "deliver", "messages", "pong"}  # answers to a request number
UNITS = {"BYTES": "bytes", "MS": "ms", "CHARS": "characters"}


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, or a sentence if it has no rows."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    if not lines:
        return "None.\n"
    head = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    return "\n".join([*head, *lines]) + "\n"


def command_table() -> str:
    """Return the overview of all commands."""
    rows = (
        (
            f"`{row.op}`",
            ", ".join(phase.value for phase in row.phases),
            "none" if row.answer is Answer.NONE else f"`{row.answer.value}`",
            "yes" if row.repeatable else "no" if row.answer.value in REPLIES else "-",
            row.meaning,
        )
        for row in COMMANDS.values()
    )
    return table(("command", "phase", "answer", "may be asked again", "meaning"), rows)


def fields_of(command: Command) -> str:
    """Return the fields and columns of one command."""
    text = table(
        ("field", "type", "default", "range", "unit", "meaning"), map(_field, command.fields)
    )
    if not command.columns:
        return text
    word = "may" if any(field.kind is Kind.NAMES for field in command.fields) else "must"
    names = ", ".join(f"`{name}`" for name in command.columns)
    return f"{text}\nColumns that {word} follow, in this order: {names}.\n"


def _field(field: Field) -> tuple[str, ...]:
    return (
        f"`{field.name}`",
        "list of str" if field.kind is Kind.NAMES else field.kind.value,
        _default(field),
        f"0-{_number(field.high)}" if field.kind is Kind.INT else f"at most {_number(field.high)}",
        field.unit or "-",
        field.meaning,
    )


def _default(field: Field) -> str:
    if field.default is REQUIRED:
        return "required"
    if field.default == ():
        return "none"
    return {None: "none", "": "empty"}.get(field.default, f"{field.default}")  # type: ignore[call-overload, no-any-return]


def frame_table() -> str:
    """Return the overview of the frames that the server sends."""
    rows = ((f"`{row.op}`", row.meaning) for row in SERVER_FRAMES.values())
    return table(("frame", "meaning"), rows)


def fields_of_frame(frame: ServerFrame) -> str:
    """Return the fields and columns of one server frame."""
    text = table(("field", "meaning"), ((f"`{name}`", said) for name, said in frame.fields.items()))
    if not frame.columns:
        return text
    names = ", ".join(f"`{name}`" for name in frame.columns)
    return f"{text}\nColumns: {names}.\n"


def column_table() -> str:
    """Return the layouts of all columns."""
    rows = ((f"`{row.name}`", _layout(row), row.meaning) for row in COLUMNS.values())
    return table(("column", "layout of an entry", "meaning"), rows)


def _layout(column: Column) -> str:
    if column.layout == "str":
        return "string"
    types = {"B": "u8", "I": "u32", "Q": "u64"}
    size = calcsize("<" + column.layout)
    return f"{' '.join(types[letter] for letter in column.layout)} ({size} bytes)"


def setting_table() -> str:
    """Return the settings of a queue."""
    rows = (
        (
            f"`{row.name}`",
            f"{row.default}",
            ", ".join(row.choices) or f"{row.low}-{_number(row.high)}",
            row.meaning + " May have a limit (section 5.16)." * row.may_limit,
        )
        for row in SETTINGS.values()
    )
    return table(("setting", "default", "range", "meaning"), rows)


def error_table() -> str:
    """Return the errors that the server sends, then those that only a client library raises."""
    rows = (
        (
            f"`{code}`",
            "server" if row.on_wire else "client",
            "yes" if row.error.retryable else "no",
            (row.error.__doc__ or "").strip().partition("\n")[0],
            row.advice,
        )
        for code, row in sorted(ERRORS.items(), key=lambda entry: not entry[1].on_wire)
    )
    return table(("code", "raised by", "retryable", "meaning", "what to do"), rows)


def reason_table() -> str:
    """Return why a message is not running, and what lets it go on."""
    rows = ((f"`{row.code}`", row.states, row.says, row.release or "-") for row in REASONS.values())
    return table(("reason", "state", "meaning", "what lets it go on"), rows)


def end_table() -> str:
    """Return how a message may end, and what those who wait for its result are told."""
    rows = ((f"`{state}`", f"`{row.reason}`", row.says or "-") for state, row in ENDS.items())
    return table(("state", "reason", "what the error of the clients says"), rows)


def limit_table() -> str:
    """Return every number on which both sides must agree."""
    rows = ((f"`{name}`", _number(value), unit) for name, value, unit in limit_rows())
    return table(("limit", "value", "unit"), rows)


def limit_rows() -> Iterator[tuple[str, int, str]]:
    """Yield name, value and unit of each integer limit."""
    for name, value in vars(limits).items():
        if name.isupper() and isinstance(value, int):
            yield name, value, UNITS.get(name.rpartition("_")[2], "-")


def _number(value: int) -> str:
    exact = {2**16 - 1: "2^16-1", 2**32 - 1: "2^32-1", 2**53: "2^53", 2**64 - 1: "2^64-1"}
    return exact.get(value, f"{value:,}")


def metric_table() -> str:
    """Return every number that `stats` shows of a queue."""
    rows = (
        (f"`{row.name}`", "counter" if row.counter else "gauge", row.meaning)
        for row in METRICS.values()
    )
    return table(("metric", "kind", "meaning"), rows)


def family_table() -> str:
    """Return every metric that the HTTP port shows."""
    rows = (
        (
            f"`{row.sample_name}`",
            row.kind,
            ", ".join(row.labels) or "-",
            row.after_restart,
            row.meaning,
        )
        for row in FAMILIES.values()
    )
    return table(("metric", "kind", "labels", "after a restart", "meaning"), rows)


def route_table() -> str:
    """Return every path of the HTTP port."""
    rows = ((f"`{row.method} {row.path}`", row.need.value, row.meaning) for row in ROUTES)
    return table(("path", "needs", "what it answers"), rows)


def record_table() -> str:
    """Return the record types of the log, from the docstrings of their classes."""
    rows = (
        (str(number), meta.__name__.removesuffix("Meta").upper(), _first_sentences(meta))
        for number, meta in RECORD_TYPES.items()
    )
    return table(("type", "name", "says"), rows)


def _first_sentences(meta: type) -> str:
    return " ".join((meta.__doc__ or "").partition("\n\n")[0].split())


def right_table() -> str:
    """Return what each operation needs of a token."""
    rows = (
        (
            f"`{row.op}`",
            "any"
            if len(row.any_of) == len(Right)
            else " or ".join(right.value for right in Right if right in row.any_of),
            ", ".join(f"`{name}`" for name in row.queues) or "-",
            row.says or "-",
        )
        for row in RIGHTS.values()
    )
    return table(("operation", "needs", "on the queues of", "remarks"), rows)


def check_table() -> str:
    """Return what `minibroker check` judges."""
    rows = ((f"`{row.name}`", row.bounds, row.meaning) for row in CHECKS.values())
    return table(("check", "warning, critical", "what is judged"), rows)


def version_table(versions: Iterable[Version]) -> str:
    """Return the rows of a table of versions, of the protocol or of the log."""
    rows = ((str(each.number), each.release, each.added) for each in versions)
    return table(("version", "since release", "added"), rows)


def exit_table(exits: Iterable[Exit]) -> str:
    """Return exit codes of the command line."""
    rows = ((str(row.code), row.meaning, row.advice) for row in exits)
    return table(("code", "what happened", "what to do"), rows)


def event_table() -> str:
    """Return the events that the server logs."""
    return table(("event", "meaning"), ((f"`{name}`", said) for name, said in EVENTS.items()))


def worker_event_table() -> str:
    """Return the events that a worker logs."""
    return table(
        ("event", "meaning"), ((f"`{name}`", said) for name, said in WORKER_EVENTS.items())
    )


def signal_table() -> str:
    """Return what becomes of each signal."""
    rows = ((", ".join(f"`{name}`" for name in row.names), row.becomes.value) for row in SIGNALS)
    return table(("signal", "what becomes of it"), rows)


def protocol_tables() -> dict[str, str]:
    """Return every table that protocol.md must have."""
    made = {
        "commands": command_table(),
        "frames": frame_table(),
        "columns": column_table(),
        "settings": setting_table(),
        "errors": error_table(),
        "reasons": reason_table(),
        "ends": end_table(),
        "limits": limit_table(),
        "metrics": metric_table(),
        "rights": right_table(),
        "protocol versions": version_table(PROTOCOL_VERSIONS),
    }
    made |= {f"command {op}": fields_of(row) for op, row in COMMANDS.items()}
    return made | {f"frame {op}": fields_of_frame(row) for op, row in SERVER_FRAMES.items()}


# The tables that each document must have, by the name in their markers.
DOCUMENTS: Mapping[Path, Callable[[], dict[str, str]]] = {
    PROTOCOL: protocol_tables,
    ARCHITECTURE: lambda: {
        "records": record_table(),
        "log versions": version_table(row.version for row in LOG_VERSIONS),
    },
    OPERATING: lambda: {
        "exits": exit_table(EXITS),
        "check exits": exit_table(CHECK_EXITS),
        "checks": check_table(),
        "events": event_table(),
        "signals": signal_table(),
        "worker events": worker_event_table(),
        "families": family_table(),
        "routes": route_table(),
    },
}


def render(path: Path) -> str:
    """Return a document with every marked table printed again.

    Raises:
        KeyError: a marker names a table that does not exist.
    """
    made = DOCUMENTS[path]()
    text = path.read_text("utf-8")
    return MARKED.sub(lambda found: found[1] + made[found["name"]] + found[3], text)


if __name__ == "__main__":
    for path in DOCUMENTS:
        path.write_text(render(path), "utf-8")
