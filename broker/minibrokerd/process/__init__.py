"""What the process is among others: exit codes, signals, the service manager, memory, and its lines for an
operator.
"""
