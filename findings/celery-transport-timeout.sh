#!/usr/bin/env bash
# celery 5.7.0 on kombu 5.7.0: a TimeoutError of the transport is "no message", so the worker never reconnects and takes a CPU.
#
# A transport of one's own names in connection_errors the "errors that can happen due to connection failure" (kombu's
# reference); at one of them a worker reconnects. OSError is there, and TimeoutError is an OSError. But the worker's loop
# catches socket.timeout (the same class since Python 3.10) before: it is how drain_events() says that its wait is over. When a
# client behind the transport reports "the broker has not answered for five seconds" that way, the loop asks again at once:
# some hundred thousand calls a second, no line in the log, no new connection, and to its supervisor the worker looks alive. A
# ConnectionError is handled as documented. What to do in a transport: raise queue.Empty for "nothing came" and any other
# listed class for a broker that is silent; let no TimeoutError out of _get() and _get_many().
#
# It needs python3 and the Python Package Index; it ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install celery==5.7.0 kombu==5.7.0

cat > "$folder/silent.py" <<'EOF'
import os
import sys
import threading

from celery import Celery
from kombu.transport import TRANSPORT_ALIASES, virtual

KIND = {"TimeoutError": TimeoutError, "ConnectionError": ConnectionError}[sys.argv[1]]
calls = connections = 0


class Channel(virtual.Channel):
    """A queue whose broker has stopped to answer."""

    def _get(self, queue, timeout=None):
        global calls
        calls += 1
        raise KIND("the broker does not answer")

    def _put(self, queue, message, **more):
        """Take nothing."""

    def _size(self, queue):
        return 0


class Transport(virtual.Transport):
    """Names its errors, as kombu's pages ask for."""

    Channel, driver_type, driver_name = Channel, "silent", "silent"
    connection_errors = (OSError,)

    def driver_version(self):
        return "1"

    def establish_connection(self):
        global connections
        connections += 1
        return super().establish_connection()


TRANSPORT_ALIASES["silent"] = "__main__:Transport"
app = Celery(broker="silent://localhost")
worker = app.Worker(pool="solo", without_heartbeat=True, without_gossip=True, without_mingle=True)
threading.Thread(target=worker.start, daemon=True).start()
threading.Event().wait(5)
often = "more than 1,000" if calls > 1_000 else "fewer than 100" if calls < 100 else calls
print(f"{KIND.__name__}: {often} calls, connected again: {connections > 1}", file=sys.__stdout__, flush=True)
os._exit(0)
EOF

for kind in TimeoutError ConnectionError; do
    "$folder/venv/bin/python" -W ignore "$folder/silent.py" $kind 2>> "$folder/log" | grep -o "$kind: .*"
done | tee "$folder/seen"

diff "$folder/seen" - <<'EOF'
TimeoutError: more than 1,000 calls, connected again: False
ConnectionError: fewer than 100 calls, connected again: True
EOF
echo "as it was: a TimeoutError is taken for an empty queue"
