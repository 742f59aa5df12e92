#!/usr/bin/env bash
# FastStream 0.7.8: a handler that asks for bytes is refused those bodies that happen to be JSON.
#
# Bytes are published as they are, without a content type, and a handler is given what its annotation says (FastStream's pages
# on serialization). For `async def handler(body: bytes)` most bodies arrive as they were. But without a content type the
# parser tries JSON first, whatever the handler asks for; b"17", b"null" and b'{"id": 1}' become an int, None and a dict, and
# these are then no bytes: ValidationError, the handler does not run. The same values published as str arrive as bytes. Whoever
# passes on compressed or signed bodies, or numbers in text, has a consumer that fails for a few of its messages, and a poison
# message where the broker gives it back. What to do: publish with the header content-type: application/octet-stream (last
# line), or take the message object and its .body.
#
# It needs python3 and the Python Package Index; it ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install \
    faststream==0.7.8 fast-depends==3.0.9 pydantic==2.14.4 anyio==4.16.0 nats-py==2.16.0

"$folder/venv/bin/python" - <<'EOF' | tee "$folder/seen"
import asyncio

from faststream.nats import NatsBroker, NatsMessage, TestNatsBroker

broker = NatsBroker(logger=None)


@broker.subscriber("bytes")
async def takes_bytes(body: bytes):
    print("  the handler got", body)


@broker.subscriber("message")
async def takes_the_message(message: NatsMessage):
    print("  the handler got", message.body)


async def publish(body, subject, **more):
    print(f"{body!r} to {subject}", *more.values())
    try:
        await broker.publish(body, subject, **more)
    except Exception as error:
        print("  refused:", type(error).__name__)


async def main():
    async with TestNatsBroker(broker, connect_only=False):
        for body in (b"seventeen", b"17", b"null", b'{"id": 1}', "17"):
            await publish(body, "bytes")
        await publish(b"17", "message")
        await publish(b"17", "bytes", headers={"content-type": "application/octet-stream"})


asyncio.run(main())
EOF

diff "$folder/seen" - <<'EOF'
b'seventeen' to bytes
  the handler got b'seventeen'
b'17' to bytes
  refused: ValidationError
b'null' to bytes
  refused: ValidationError
b'{"id": 1}' to bytes
  refused: ValidationError
'17' to bytes
  the handler got b'17'
b'17' to message
  the handler got b'17'
b'17' to bytes {'content-type': 'application/octet-stream'}
  the handler got b'17'
EOF
echo "as it was: bytes that are JSON do not reach a handler of bytes"
