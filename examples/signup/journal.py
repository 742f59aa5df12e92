"""Append-only files of JSON lines: the record of the mail server and the journal of the workers.

A line is one write to a file opened for appending, so several processes may share a file and a
SIGKILL leaves no half line between two whole ones.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


class Journal:
    """One such file; created with the first line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, **entry: object) -> None:
        """Append one entry, stamped with the wall clock in seconds."""
        line = json.dumps({"at": time.time(), **entry}) + "\n"
        target = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(target, line.encode())
        finally:
            os.close(target)

    def read(self) -> list[dict[str, Any]]:
        """Return all entries in the order of writing; none if there is no file yet."""
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text().splitlines()]
