"""The minibroker server. `core/` is pure; the rooms around it and their arrows are in docs/architecture.md."""

from minibroker import __version__

__all__ = ["__version__"]
