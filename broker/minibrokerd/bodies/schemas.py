"""Whether bodies fit a JSON Schema, in bounded time; decision 67 has the bounds and their reasons.

The checker comes with the extra `schema`, and is imported when a queue has one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import msgpack

from minibroker.contract.wire import ENCODING_BYTES
from minibrokerd.core.model.extents import NoChecker

MOST_PARTS: Final = 1_000  # of a schema, with what its references lead to in their places
MOST_DEPTH: Final = 100
MOST_CHECKED_BYTES: Final = 64 * 1024
REGEX_BYTES: Final = 64 * 1024  # of one compiled pattern
PATTERN_PARTS: Final = 30  # for how many parts a pattern counts: of memory, and of time
MOST_TEXT_CHARS: Final = 400
_DRAFTS: Final = (
    "http://json-schema.org/draft-04/schema",
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-07/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
)
_SHELVES: Final = "$defs", "definitions"  # what stands there is asked where a reference leads to it
_MOVING: Final = ("$dynamicRef", "$recursiveRef")


class Schema:
    """One schema that can be asked."""

    __slots__ = ("_check", "_misfit")

    def __init__(self, text: bytes) -> None:
        """Understand a schema.

        Raises:
            ValueError: it is none, or checking it may take without end.
            NoChecker: the library is not installed.
        """
        try:
            import jsonschema_rs
        except ImportError as error:
            raise NoChecker from error
        schema = _parsed(text)
        _Bounds(schema).check()
        try:
            self._check: Any = jsonschema_rs.validator_for(
                schema,
                mask="the value",
                offline=True,
                pattern_options=jsonschema_rs.RegexOptions(
                    size_limit=REGEX_BYTES, dfa_size_limit=REGEX_BYTES
                ),
            )
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise ValueError(f"it is no JSON Schema: {_line(error)}") from None
        self._misfit = jsonschema_rs.ValidationError

    def misfit(self, body: memoryview, encoding: int) -> tuple[str, str] | None:
        """Return with which code a body is refused, and where and why it does not fit; None: it fits."""
        if len(body) > MOST_CHECKED_BYTES:
            text = f"a body of {len(body)} bytes; {MOST_CHECKED_BYTES} are checked at the most"
            return "too_large", text
        wrong = self._wrong(body, encoding)
        return ("schema_mismatch", wrong) if wrong else None

    def _wrong(self, body: memoryview, encoding: int) -> str:
        if encoding == ENCODING_BYTES:
            return "$: the body is bytes, and the queue takes values"
        try:
            value = msgpack.unpackb(body, use_list=True)
        except Exception:  # noqa: BLE001 - msgpack promises no closed set of errors
            return "$: the body is no msgpack value"
        try:
            self._check.validate(value)
        except self._misfit as error:
            return f"{_place(error.instance_path)}: {error.message}"[:MOST_TEXT_CHARS]
        except ValueError as error:  # bytes in it, or nested too deeply
            return f"$: {error}"[:MOST_TEXT_CHARS]
        return ""


def _parsed(text: bytes) -> Any:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error}") from None
    if not isinstance(schema, dict | bool):
        raise ValueError("a JSON Schema is an object, or true or false")
    if isinstance(schema, dict):
        draft = schema.get("$schema", _DRAFTS[-1])
        if not isinstance(draft, str) or draft.removesuffix("#") not in _DRAFTS:
            raise ValueError(f"$schema is {draft!r:.200}; known are {', '.join(_DRAFTS)}")
    return schema


class _Bounds:
    """How much there is to a schema, when what each of its references leads to stands in its place."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._parts: dict[str, int] = {}  # of what each reference leads to
        self._open: set[str] = set()  # those that are being looked at

    def check(self) -> None:
        """Raise ValueError if it is too much, or has no end."""
        parts = self._count(self._schema)
        if parts > MOST_PARTS:
            raise ValueError(
                f"it has more than {MOST_PARTS} parts, with what each $ref leads to in its place; a pattern "
                f"counts as {PATTERN_PARTS}"
            )

    def _count(self, part: Any, depth: int = 0) -> int:
        if depth > MOST_DEPTH:
            raise ValueError(f"it is nested more than {MOST_DEPTH} deep, references included")
        if isinstance(part, list):
            return sum(self._count(each, depth + 1) for each in part)
        if not isinstance(part, dict):
            return 0
        for name in _MOVING:
            if name in part:
                raise ValueError(f"{name} is not allowed: what it leads to is not known before")
        if depth and isinstance(part.get("$id", part.get("id")), str):
            raise ValueError("$id is allowed at the top only")
        patterns = isinstance(part.get("pattern"), str) + len(_keys(part.get("patternProperties")))
        parts = 1 + PATTERN_PARTS * patterns
        parts += sum(
            self._count(each, depth + 1) for name, each in part.items() if name not in _SHELVES
        )
        reference = part.get("$ref")
        return parts + self._behind(reference, depth) if isinstance(reference, str) else parts

    def _behind(self, reference: str, depth: int) -> int:
        if reference in self._open:
            raise ValueError(f"$ref {reference!r:.100} leads back to itself")
        if reference not in self._parts:
            self._open.add(reference)
            self._parts[reference] = self._count(self._found(reference), depth + 1)
            self._open.remove(reference)
        return self._parts[reference]

    def _found(self, reference: str) -> Any:
        if not reference.startswith("#/"):
            raise ValueError(
                f"$ref {reference!r:.100} does not begin with #/: a schema leads nowhere but into itself"
            )
        found = self._schema
        for name in reference[2:].split("/"):
            name = name.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or name not in found:
                raise ValueError(f"$ref {reference!r:.100} leads to nothing")
            found = found[name]
        return found


def _keys(value: Any) -> Any:
    return value if isinstance(value, dict) else ()


def _place(path: Sequence[str | int]) -> str:
    return "$" + "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in path)


def _line(error: Exception) -> str:
    text = str(getattr(error, "message", error))
    return " ".join(text.split())[:MOST_TEXT_CHARS]
