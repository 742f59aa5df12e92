"""What the core knows: queues, lanes, messages, deliveries, sessions, timers, sums, and the records that say
it.
"""
