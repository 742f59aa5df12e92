"""Bugs of schemas."""

from __future__ import annotations

from typing import Final

from mutant import Mutant

SCHEMA_MUTANTS: Final = (
    Mutant(
        "a schema is forgotten by a start",
        "core/model/schemas.py",
        "            self.by_queue[number] = understood(store.bodies, text)\n",
        "            understood(store.bodies, text)\n",
        ("core/test_core_schemas.py",),
        "5.18: what does not fit is refused, over restarts",
    ),
    Mutant(
        "only the first body of a frame is checked",
        "core/model/schemas.py",
        "        for index, body in enumerate(extent.bodies(part.count)):\n",
        "        for index, body in enumerate(extent.bodies(1)):\n",
        ("core/test_core_schemas.py",),
        "5.18: what does not fit is stored, if something before it does",
    ),
    Mutant(
        "headers are taken for the body",
        "bodies/memory_extents.py",
        "            yield view[blob_at - body_bytes : blob_at]\n",
        "            yield view[blob_at - body_bytes - headers_bytes : blob_at]\n",
        ("core/test_core_schemas.py",),
        "5.18: no message with headers fits",
    ),
    Mutant(
        "an exchange leads past the schema of a queue",
        "core/verbs/routing.py",
        "            store.schemas.check(queue, frame, extent, part, columns)\n",
        "            pass\n",
        ("core/test_core_schemas.py",),
        "5.18: by `route`, too",
    ),
    Mutant(
        "the schema of a queue that is gone stays",
        "core/verbs/moving.py",
        "        store.schemas.end(store, each.number)\n",
        "",
        ("core/test_core_schemas.py",),
        "its record and its memory are kept for ever",
    ),
    Mutant(
        "a server without the checker lets everything through",
        "core/model/schemas.py",
        "        if schema is None:\n",
        "        if schema is None and frame.size < 0:\n",
        ("core/test_core_schemas.py",),
        "5.18: publishes are refused then",
    ),
    Mutant(
        "a reference may lead back to itself",
        "bodies/schemas.py",
        "        if reference in self._open:\n            raise ValueError(",
        "        if reference in self._open and depth < 0:\n            raise ValueError(",
        ("core/test_core_schemas.py",),
        "5.18: a schema whose check has no bound is taken, or none is said why",
    ),
    Mutant(
        "what a reference leads to counts once",
        "bodies/schemas.py",
        "        return self._parts[reference]\n",
        "        return self._parts.pop(reference, 0) if len(self._open) > 1 else 0\n",
        ("core/test_core_schemas.py",),
        "5.18: a schema of 2 KB takes the server for ever",
    ),
    Mutant(
        "the value stands in the refusal",
        "bodies/schemas.py",
        '                mask="the value",\n',
        "",
        ("core/test_core_schemas.py",),
        "5.18: what people publish ends in logs",
    ),
    Mutant(
        "a body has no bound",
        "bodies/schemas.py",
        "        if len(body) > MOST_CHECKED_BYTES:\n",
        "        if len(body) > MOST_CHECKED_BYTES * 64:\n",
        ("core/test_core_schemas.py",),
        "5.18: one body takes the turn of all",
    ),
)
