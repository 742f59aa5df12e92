"""The schema of a queue as an application says it: JSON Schema, or a type that one is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from minibroker.contract import limits
from minibroker.contract.errors import TooLarge
from minibroker.session.typed import name_of
from minibroker.session.wishes import Wish


def put(queue: str, schema: Any) -> Wish:
    """Return the wish for a schema; None: for none.

    Raises:
        TypeError: it is neither a JSON Schema nor a type that one can be made of.
        TooLarge: it has too many bytes.
    """
    return "schema_set", {"queue": queue, "schema": _text(schema)}, b""


def show(queue: str) -> Wish:
    """Return the wish to see the schema of a queue."""
    return "schema_show", {"queue": queue}, b""


def read(value: Mapping[str, Any]) -> Any:
    """Return a schema out of an answer; None: there is none."""
    return json.loads(value["schema"]) if value["schema"] else None


def _text(schema: Any) -> bytes:
    if schema is None:
        return b""
    if not isinstance(schema, Mapping | bool):
        schema = _of_type(schema)
    try:
        text = json.dumps(dict(schema) if isinstance(schema, Mapping) else schema).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"a schema is what JSON can carry: {error}") from error
    if len(text) > limits.MAX_SCHEMA_BYTES:
        raise TooLarge(f"a schema of {len(text)} bytes, and {limits.MAX_SCHEMA_BYTES} are allowed")
    return text


def _of_type(wanted: Any) -> dict[str, Any]:
    make = getattr(wanted, "model_json_schema", None)
    try:
        if callable(make):  # pydantic knows its own
            return dict(make())
        return msgspec.json.schema(wanted)
    except Exception as error:  # of several kinds, and what to do is the same
        raise TypeError(
            f"no schema can be made of {name_of(wanted)}: {error}; give a JSON Schema as a dict"
        ) from error
