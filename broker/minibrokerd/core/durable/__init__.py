"""What stands in the log of what the core knows: bodies as they came, digests, places, copies."""
