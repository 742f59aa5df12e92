"""What stands in the log of what the core knows: blocks, digests, copies, and the way out of memory and back."""
