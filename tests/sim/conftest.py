"""The states that a crash may leave are those of tests/cuts, and simulated streams those of tests/replicated."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "cuts"))
sys.path.append(str(Path(__file__).parents[1] / "replicated"))
