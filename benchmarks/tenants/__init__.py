"""`make bench-tenants`: what tenants, priorities, doubles and schedules need at each peer, and what it gives."""
