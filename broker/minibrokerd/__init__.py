"""The minibroker server. `core/` is pure; the rest is the shell around it (docs/architecture.md)."""

from typing import Final

__version__: Final = "0.1.0"
