"""Be `minibroker WORDS` for a shell: ask_warmer.py FD WORDS has it forked by the warmer behind that socket.

It is run with -I -S, and imports next to nothing: its start is all that it costs.
"""

import _socket
import json
import os
import signal
import sys
from array import array

NUMBER_BYTES = 12  # as warmer.py tells them


def main() -> None:
    """Hand on words, variables, folder and streams; end as what was forked ends."""
    fd, *words = sys.argv[1:]
    request = {
        "file": None,
        "words": words,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "session": False,
    }
    told, tells = os.pipe()
    streams = array("i", [0, 1, 2, tells])
    warmer = _socket.socket(fileno=int(fd))
    warmer.sendmsg(
        [json.dumps(request).encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)]
    )
    os.close(tells)
    os.read(told, NUMBER_BYTES)  # its number
    code = int(os.read(told, NUMBER_BYTES))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


main()
