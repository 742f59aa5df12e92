"""Arguments that name a file which is written beside its place, and renamed to it when it is whole."""

from __future__ import annotations

import os
from typing import Any

import click


class WholeFile(click.Path):
    """A path at which there is nothing yet, or a plain file; that of a link is what it leads to.

    A rename would put a plain file in the place of whatever else has the name: of a pipe, or of /dev/null.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; BadParameter if something is there that is no plain file."""
        path = os.path.realpath(value) if os.path.islink(value) else value
        path = super().convert(path, param, ctx)
        if os.path.exists(path) and not os.path.isfile(path):
            self.fail(
                f"{click.format_filename(value)!r} is no plain file, and would be replaced by one; name another",
                param,
                ctx,
            )
        return path
