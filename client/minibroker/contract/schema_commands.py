"""Rows of the command table: the schema that bodies of a queue must fit."""

from __future__ import annotations

from typing import Final

from minibroker.contract import limits
from minibroker.contract.fields import QUEUE
from minibroker.contract.rows import REQUIRED, Answer, Command, Field, Kind, Phase

_MAIN = (Phase.OPEN,)

SCHEMA_COMMANDS: Final[tuple[Command, ...]] = (
    Command(
        "schema_set",
        _MAIN,
        Answer.REPLY,
        (
            QUEUE,
            Field(
                "schema",
                Kind.BYTES,
                REQUIRED,
                limits.MAX_SCHEMA_BYTES,
                "bytes",
                "JSON Schema as JSON text; empty: none.",
            ),
        ),
        (),
        "Let a queue take only bodies that fit a schema; or any again.",
        repeatable=True,
    ),
    Command(
        "schema_show",
        _MAIN,
        Answer.REPLY,
        (QUEUE,),
        (),
        "The schema that bodies of a queue must fit.",
        repeatable=True,
    ),
)
