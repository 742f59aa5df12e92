"""The minibroker server. `core/` is pure; the rest is the shell around it (docs/architecture.md)."""

from minibroker import __version__

__all__ = ["__version__"]
