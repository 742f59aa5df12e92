"""What the command table is made of: kinds of fields, phases, answers, and the rows themselves."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

REQUIRED: Final = object()  # the field has no default: leaving it out is a protocol error


class Kind(Enum):
    """The type of a header field, as msgpack carries it."""

    INT = "int"  # 0 or more, up to `high`
    STR = "str"  # UTF-8, at most `high` bytes
    BYTES = "bytes"
    MAP = "map"  # of str to int or str
    NAMES = "names"  # a list of column names


class Phase(Enum):
    """Where a connection stands; each command is legal in the phases its row names."""

    NEW = "new"  # nothing but hello, resume, attach
    OPEN = "open"  # a session's main connection
    ATTACHED = "attached"  # a session's second connection: signs of life, renewals, releases


class Answer(Enum):
    """How a command is answered."""

    WELCOME = "welcome"  # by a welcome frame
    CONFIRM = "confirm"  # by the confirm of the frame's sequence, once it is as safe as it says
    REPLY = "reply"  # by a reply with the frame's request number; so are the next four
    DELIVER = "deliver"
    MESSAGES = "messages"
    LOG = "log"
    PONG = "pong"
    NONE = "none"  # not answered


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a part, printed as one table row in protocol.md."""

    name: str
    kind: Kind
    default: object
    high: int  # largest value (INT), largest size in bytes (STR, BYTES), most entries (MAP, NAMES)
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Column:
    """A packed per-message (or per-run) value; little-endian, no padding."""

    name: str
    layout: str  # a struct format, or "str": u32 lengths of all entries, then their bytes
    meaning: str


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the command table; one section of protocol.md."""

    op: str
    phases: tuple[Phase, ...]
    answer: Answer
    fields: tuple[Field, ...]
    columns: tuple[str, ...]  # those that may (publish) or must (all others) follow, in this order
    meaning: str
    # Asking twice does what asking once does: asked again on a new connection.
    repeatable: bool = False
    nameless: bool = False  # may come without a request number
