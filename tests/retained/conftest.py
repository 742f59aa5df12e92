"""What a crash may leave of files is told where that of the append-only log is."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "cuts"))
