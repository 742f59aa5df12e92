"""Back-ups of a data directory that a server may be writing to; docs/decisions/0033 has why they are believed."""
