"""`minibroker log move`: a log goes from a directory into a stream, or back, while no server runs."""
