"""The API as an OpenAPI document, printed from the table of paths and the types of what they take and give."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

import msgspec

from minibrokerd import __version__
from minibrokerd.http import shapes
from minibrokerd.http.gate import Need
from minibrokerd.http.requests import Ask

PLACE: Final = "#/components/schemas/{name}"
NUMBERS: Final = frozenset({"count"})


async def document(ask: Ask) -> dict[str, Any]:
    """Return the document."""
    return made()


@cache
def made() -> dict[str, Any]:
    """Return the document; it does not change while the broker runs."""
    from minibrokerd.http.routes import API  # which has this module in it

    types = [*dict.fromkeys(each for row in API for each in (row.gives, row.takes) if each)]
    schemas, components = msgspec.json.schema_components(
        [*types, shapes.Failed], ref_template=PLACE
    )
    schema_of = {
        str(each): schema for each, schema in zip([*types, shapes.Failed], schemas, strict=True)
    }
    paths: dict[str, dict[str, Any]] = {}
    for row in API:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "minibroker", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(row: Any, schema_of: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": f"{row.answer.__name__}",
        "summary": row.meaning,
        "parameters": [
            *(_parameter(name, "path", "") for name in re.findall(r"{(\w+)}", row.path)),
            *(_parameter(name, "query", meaning) for name, meaning in row.query.items()),
        ],
        "responses": {
            "200": {"description": "done", **_content(schema_of.get(str(row.gives), {}))},
            "default": {
                "description": "nothing was done",
                **_content(schema_of[str(shapes.Failed)]),
            },
        },
    }
    if row.takes is not None:
        made["requestBody"] = _content(schema_of[str(row.takes)])
    if row.need is Need.CHANGE:
        made["security"] = [{"token": []}]
    return made


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _parameter(name: str, where: str, meaning: str) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "in": where, "required": where == "path"}
    made["schema"] = {"type": "integer" if name in NUMBERS else "string"}
    return made | ({"description": meaning} if meaning else {})
