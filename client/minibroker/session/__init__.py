"""The pure part of the client: bytes, times and wishes go in, bytes and events come out; no I/O, no clock."""
