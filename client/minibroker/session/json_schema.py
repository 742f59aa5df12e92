"""Bodies that fit a JSON Schema, checked before anything is sent, by the checker that the server has, too.

It needs the extra `schema`. The schema of a queue refuses what does not fit whoever publishes it; this one spares
the way there, and checks where the server does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from minibroker.contract.errors import SchemaMismatch


class JsonSchema:
    """Stands for the type of the bodies of a queue: `broker.queue("people", JsonSchema({"type": "object"}))`.

    What is published there and does not fit raises SchemaMismatch, which begins with the place, and nothing is
    sent. What is read is not checked. JSON Schema 2020-12 if `$schema` says nothing else.

    Raises:
        ValueError: it is no JSON Schema.
        ImportError: `pip install 'minibroker[schema]'` is needed.
    """

    __slots__ = ("_check", "_misfit")

    def __init__(self, schema: Mapping[str, Any] | bool) -> None:
        try:
            checker = import_module("jsonschema_rs")
        except ImportError as error:
            raise ImportError(
                "to check schemas needs `pip install 'minibroker[schema]'`"
            ) from error
        given = dict(schema) if isinstance(schema, Mapping) else schema
        try:
            self._check: Any = checker.validator_for(given, mask="the value", offline=True)
        except (ValueError, checker.ReferencingError) as error:
            raise ValueError(f"it is no JSON Schema: {getattr(error, 'message', error)}") from None
        self._misfit = checker.ValidationError

    def checked(self, body: Any) -> Any:
        """Return a plain body if it fits; SchemaMismatch."""
        if type(body) is bytes:
            raise SchemaMismatch(
                "$: the body is bytes, and a schema is about values; nothing was sent"
            )
        try:
            self._check.validate(body)
        except self._misfit as error:
            raise SchemaMismatch(
                f"{_place(error.instance_path)}: {error.message}; nothing was sent"
            ) from None
        except ValueError as error:  # bytes in it
            raise SchemaMismatch(f"$: {error}; nothing was sent") from None
        return body


def _place(path: Any) -> str:
    return "$" + "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in path)
