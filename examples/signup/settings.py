"""Where one run of the signup service keeps its files and finds its neighbours.

The demo starts the app, the workers and the mail server as processes of their own and tells each of
them the same settings through its environment, as a deployment would.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one run; the seconds are the slowness that the story is about."""

    folder: Path  # users.db, analytics.db, avatars/, mail.jsonl, journal.jsonl
    mode: str = "queued"  # or "request": the slow work is done before the answer
    app_port: int = 8000
    smtp_port: int = 8025
    broker_url: str = "minibroker://localhost:7272"
    refused_address: str = "ada@typo.example"
    save_seconds: float = 0.010
    mail_seconds: float = 2.0
    analytics_seconds: float = 0.050
    lease_ms: int = 3_000

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read what `to_environment` wrote; what is missing keeps its default.

        Raises:
            KeyError: SIGNUP_FOLDER is not set.
        """
        values: dict[str, Any] = {"folder": Path(environment["SIGNUP_FOLDER"])}
        for field in fields(cls):
            text = environment.get(_variable(field.name))
            if text is not None and field.name != "folder":
                kind: Any = type(field.default)  # str, int or float
                values[field.name] = kind(text)
        return cls(**values)

    def to_environment(self) -> dict[str, str]:
        """Return the variables that tell a child process these settings."""
        return {_variable(field.name): str(getattr(self, field.name)) for field in fields(self)}


def _variable(name: str) -> str:
    return f"SIGNUP_{name.upper()}"
