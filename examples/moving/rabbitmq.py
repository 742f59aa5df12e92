"""Print the ready messages of a RabbitMQ queue for `minibroker import`.

    python rabbitmq.py amqp://guest:guest@localhost:5672/ jobs [--take] > jobs.jsonl

Without --take they go back to the queue, in their order, when the script ends; in a quorum queue that counts as a
delivery. With it they are acked when all are written: a script that dies before leaves them there, and the file is
to be thrown away. Needs pika.
"""

from __future__ import annotations

import os
import sys

import pika
from carry import plain, write


def main(url: str, name: str, *flags: str) -> None:
    """Get what is ready, one by one, until the queue is empty."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    last = 0
    while True:
        method, properties, body = channel.basic_get(name)
        if method is None:
            break
        last = method.delivery_tag
        headers = {str(key): plain(value) for key, value in (properties.headers or {}).items()}
        about = ("message_id", "correlation_id", "content_type", "type", "reply_to", "priority")
        headers |= {each: getattr(properties, each) for each in about if getattr(properties, each)}
        write(body, headers=headers)
    sys.stdout.flush()
    if "--take" in flags and last:
        if os.path.isfile("/dev/stdout"):
            os.fsync(sys.stdout.fileno())
        channel.basic_ack(last, multiple=True)
    connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
