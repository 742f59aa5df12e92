"""Who may do what.

rights.py      the table of operations and rights, grants, and the verdict on (grant, operation, queues); pure
tokens.py      tokens as text, as hashes, and as rows of a file; pure
token_file.py  that file in the data directory, written by `minibroker token`, read by the server
failures.py    failed logins by address: how long an answer waits; pure
door.py        what the server holds of all this while it runs
"""
