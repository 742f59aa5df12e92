#!/usr/bin/env bash
# uvicorn 0.54.0 inside a loop that is not its own: one SIGTERM reaches the program's own handler twice.
#
# Who adds an HTTP page to a worker or a broker runs `await uvicorn.Server(config).serve()` as a task beside the rest, as
# uvicorn's page on running programmatically shows, and has a handler of its own by asyncio's loop.add_signal_handler(), which
# is called once for a signal. serve() puts handlers of its own over it. asyncio's goes by the wake-up descriptor, so it is
# called all the same; then, when serve() has ended, it raises each signal that it caught again, for whoever had a handler
# before it, and asyncio's is called a second time. A program where the second SIGTERM means "now, without waiting for the jobs
# that run" drops them at an orderly stop. Without a handler the process is ended before a line behind serve() runs. What to
# do: `server.capture_signals = contextlib.nullcontext` before serve(), and server.should_exit from the one handler.
#
# It needs python3 and the Python Package Index; it ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install uvicorn==0.54.0 h11==0.16.0 click==8.5.1

cat > "$folder/beside.py" <<'EOF'
import asyncio
import contextlib
import os
import signal
import sys

import uvicorn


async def page(scope, receive, send):
    assert scope["type"] == "lifespan"
    while True:
        event = (await receive())["type"]
        await send({"type": event + ".complete"})
        if event == "lifespan.shutdown":
            return


async def main(case):
    calls = []
    server = uvicorn.Server(uvicorn.Config(page, port=0, log_level="critical"))
    if case != "no handler":
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGTERM, lambda: calls.append("SIGTERM") or setattr(server, "should_exit", True)
        )
    if case == "signals left alone":
        server.capture_signals = contextlib.nullcontext
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    await serving
    await asyncio.sleep(0.2)
    print(f"{case}: one SIGTERM sent, own handler called {len(calls)} times, cleaned up", flush=True)


asyncio.run(main(sys.argv[1]))
EOF

for case in "own handler" "no handler" "signals left alone"; do
    code=0
    "$folder/venv/bin/python" "$folder/beside.py" "$case" 2>> "$folder/errors" || code=$?
    echo "$case: exit code $code"
done 2>> "$folder/jobs" | tee "$folder/seen"

diff "$folder/seen" - <<'EOF'
own handler: one SIGTERM sent, own handler called 2 times, cleaned up
own handler: exit code 0
no handler: exit code 143
signals left alone: one SIGTERM sent, own handler called 1 times, cleaned up
signals left alone: exit code 0
EOF
echo "as it was: serve() raises a signal again that the loop's own handler has had"
