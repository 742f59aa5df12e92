"""minibroker: hand slow work to workers, and never lose what was confirmed."""
