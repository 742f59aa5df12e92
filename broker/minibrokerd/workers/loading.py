"""Finding the app that `minibroker worker module:app` names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable

from minibroker.worker import App


class CannotLoad(Exception):
    """The app cannot be had; the text names what is wrong and the next step."""


def load(target: str) -> App:
    """Import `module:attribute` (or `module`, for its `app`) from the current folder, and return the App.

    Raises:
        CannotLoad: there is none. What the module itself raises comes out as the cause.
    """
    name, _, path = target.partition(":")
    if not name:
        raise CannotLoad(f"{target!r} names no module; write it like `module:app`")
    if "" not in sys.path and "." not in sys.path:
        sys.path.insert(0, "")
    try:
        found: object = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there; what it imports is not
        hint = "; a module has no .py" if name.endswith(".py") or "/" in name else ""
        raise CannotLoad(f"there is no module {name!r} here or on PYTHONPATH{hint}") from error
    for part in (path or "app").split("."):
        if not hasattr(found, part):
            raise CannotLoad(f"{name} has no {path or 'app'!r}{_apps(vars(found).items())}")
        found = getattr(found, part)
    if not isinstance(found, App):
        raise CannotLoad(f"{target} is {type(found).__name__}, not a minibroker.App")
    return found


def _apps(attributes: Iterable[tuple[str, object]]) -> str:
    names = [name for name, value in attributes if isinstance(value, App)]
    return f"; there is {', '.join(names)}" if names else ""
