"""What the core knows: queues, groups, lanes, messages, deliveries, sessions, timers, sums, and the records that
say it.
"""
