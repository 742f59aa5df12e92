"""Versions as rows: of the protocol here, of the log in `log/log_versions.py`. Documents print both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

APP_VERSION: Final = re.compile(
    r"[0-9]{1,9}(\.[0-9]{1,9}){0,5}"
)  # what an application may say of itself


@dataclass(frozen=True, slots=True)
class Version:
    """One version: its number, the first release that has it, and what it added."""

    number: int
    release: str
    added: str


# A server speaks all of these; a client says the newest one.
PROTOCOL_VERSIONS: Final = (Version(1, "0.1.0", "Everything in protocol.md."),)
