"""The states that a crash may leave are those of tests/cuts."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "cuts"))
