"""Crash states are those of tests/cuts, streams those of tests/replicated, looks at queues of tests/core."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "cuts"))
sys.path.append(str(Path(__file__).parents[1] / "replicated"))
sys.path.append(str(Path(__file__).parents[1] / "core"))
