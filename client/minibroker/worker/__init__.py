"""The worker: an application declares handlers, and one process takes messages for all of them.

    app.py       what an application writes: `App`, `@app.handler`, lifespan, middleware
    declared.py  one handler as a value, checked when it is declared
    recurring.py the schedules of the app, and how the server is told of them
    calling.py   how a handler is called: in the loop, or in a thread; time-outs, middleware
    children.py  processes of their own for a handler, and child.py, what runs in each
    crew.py      the slots of one handler, and what becomes of each message
    following.py what follows a failure: when it comes again, or where it goes
    work.py      all crews on one connection, from the first message to the end of the drain
    control.py   how it is ended from outside; life.py, the lifespan within the deadlines of that
    reporting.py what a worker says, and to whom

It stands on the public asyncio client alone. The command `minibroker worker` adds the process around it: signals,
a supervisor, lines for an operator (docs/decisions/0021).
"""

from minibroker.worker.app import App
from minibroker.worker.control import Control
from minibroker.worker.declared import Declared
from minibroker.worker.following import HandlerTimeout, ProcessDied, Reject, Retry
from minibroker.worker.reporting import LogReport, Report
from minibroker.worker.work import Ending, WorkOptions, chosen, work

__all__ = [
    "App",
    "Control",
    "Declared",
    "Ending",
    "HandlerTimeout",
    "LogReport",
    "ProcessDied",
    "Reject",
    "Report",
    "Retry",
    "WorkOptions",
    "chosen",
    "work",
]
