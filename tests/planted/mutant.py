"""A bug that can be planted: one text of one file, replaced by another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

SERVER: Final = "broker/minibrokerd"
CLIENT: Final = "client/minibroker"


class Stale(Exception):
    """The text of a row stands in its file not at all, or more than once: the row is to be written anew."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One row: what is planted, who should find it, and which invariant it breaks.

    `layers` are names of layers.py, cheapest first; `broken` is a row of the fault catalogue or an invariant, in
    words. `package` is the one that `path` is below: the server's, or the client's.
    """

    name: str
    path: str
    old: str
    new: str
    layers: tuple[str, ...]
    broken: str
    package: str = SERVER

    @property
    def file(self) -> str:
        """The path of the file inside the project."""
        return f"{self.package}/{self.path}"

    def text_in(self, root: Path) -> str:
        """Return what the file says with the bug in it.

        Raises:
            Stale: the text to be replaced is not there exactly once.
        """
        text = (root / self.file).read_text("utf-8")
        count = text.count(self.old)
        if count != 1:
            raise Stale(f"{self.name}: its text stands {count} times in {self.file}")
        return text.replace(self.old, self.new)
