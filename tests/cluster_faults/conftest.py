"""The faults of a cluster share ledgers, books and clients with the campaign of kills."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "kills"))
