"""The simulated stream is one of the kinds of storage that the tests of conformance open."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "replicated"))
