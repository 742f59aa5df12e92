"""Where the time of a message goes: stamps around functions of a real server and real clients, joined to spans.

CLOCK_MONOTONIC says the same in all processes of a machine, so what one of them notes can be set beside what
another does. The product knows nothing of it: the functions of `table.py` are wrapped before a process begins to
work. A name that is gone ends the process that should have it; a stamp that nothing meets ends the run.
"""
