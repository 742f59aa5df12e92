"""The API of the log's level: what it is, and another one for now."""

from __future__ import annotations

from minibrokerd.http.requests import Ask, Failure
from minibrokerd.http.shapes import LogLevel, NewLogLevel
from minibrokerd.process import logs


async def show_level(ask: Ask) -> LogLevel:
    """Return the level that holds, and the one of the configuration."""
    return LogLevel(*logs.levels())


async def set_level(ask: Ask) -> LogLevel:
    """Hold another level until the next SIGHUP or start; null: that of the configuration again."""
    wanted = (await ask.body(NewLogLevel)).level
    before, configured = logs.levels()
    new = configured if wanted is None else wanted
    if new not in logs.LEVELS:
        allowed = ", ".join(logs.LEVELS)
        raise Failure(
            400, "bad_value", f"level is {new!r:.100}; it must be one of {allowed}, or null"
        )
    # Said at the level of the two that says more: who silences a log stands in it.
    is_quieter = logs.LEVELS[new] > logs.LEVELS[before]
    if not is_quieter:
        logs.hold_level(new)
    ask.changed("log_level", from_level=before, to_level=new)
    logs.hold_level(new)
    return LogLevel(*logs.levels())
