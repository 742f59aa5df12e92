"""What client and server share: the tables, and how frames, bodies and errors look. It knows neither side."""
