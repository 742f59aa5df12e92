"""Whether the broker does well: the table of checks, the numbers that they judge, and what happened of late.

`minibroker check` and the webhooks judge the same numbers by the same table; nothing here knows of either.
"""
