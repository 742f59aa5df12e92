"""The example's modules import each other by plain names; these tests import them the same way."""

from __future__ import annotations

import sys
from pathlib import Path

SIGNUP = Path(__file__).resolve().parents[2] / "examples" / "signup"

sys.path.insert(0, str(SIGNUP))
