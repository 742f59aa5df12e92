"""One broker as `minibroker serve` runs it: its configuration, its start, its stop, and the look once a second."""
