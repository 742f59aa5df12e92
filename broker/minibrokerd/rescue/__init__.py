"""Offline tools for a log: what `log check`, `salvage`, `stats` and `restore` do while no server runs on it."""
