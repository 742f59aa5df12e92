"""What every shell needs of the world: threads, the one that renews leases first of all, and lines of the log."""
