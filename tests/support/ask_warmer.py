"""Be `minibroker WORDS` for a shell: ask_warmer.py FD WORDS has it forked by the warmer behind that socket.

It is run with -I -S, and imports next to nothing: its start is all that it costs. Signals that ask for an end are
handed on, and when this process is killed, so is what was forked.
"""

import _socket
import json
import os
import signal
import sys
from array import array

NUMBER_BYTES = 12  # as warmer.py tells them
HANDED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


def main() -> None:
    """Hand on words, variables, folder and streams; end as what was forked ends."""
    fd, *words = sys.argv[1:]
    request = {
        "file": None,
        "words": words,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "session": False,
        "held": True,
    }
    told, tells = os.pipe()
    lives, _ = os.pipe()  # its other end is open as long as this process lives
    streams = array("i", [0, 1, 2, tells, lives])
    warmer = _socket.socket(fileno=int(fd))
    warmer.sendmsg(
        [json.dumps(request).encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)]
    )
    os.close(tells)
    os.close(lives)
    pid = int(os.read(told, NUMBER_BYTES))
    for number in HANDED_ON:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: os.kill(pid, number))
    code = int(os.read(told, NUMBER_BYTES))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


main()
