"""The pure part of the server: commands and times go in, effects come out; no I/O, no clock."""
