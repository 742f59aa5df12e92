"""Logs, ledgers and commands of other tests are used here, too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parent.parent / name) for name in ("log", "kills", "cli")]
