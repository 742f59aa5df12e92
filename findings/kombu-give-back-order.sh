#!/usr/bin/env bash
# kombu 5.7.0 with SQLAlchemy 2.1.9: what a consumer holds when it closes goes behind all others, the last one first.
#
# kombu's virtual transports (SQL, filesystem and others) follow AMQP: recover(requeue=True) and the close of a channel
# put back what was not acked; a classic queue of RabbitMQ puts it to its old place. Here each message is put anew, at the
# tail, the newest first: 1 2 3 held of 1 to 5 come back as 4 5 3 2 1; by requeue(), one message after the other, as 4 5 1 2 3.
# None of them is marked: delivery_info has no "redelivered", which RabbitMQ and kombu's amqp transport set, so that a job
# cannot see that it may have run before. The memory transport, which tests use, puts nothing back at close: 1 to 3 are gone.
# What to do: requeue() what is held, in order, before close(), keep a mark of one's own, and test on a real transport.
#
# It needs python3 and the Python Package Index; it ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install kombu==5.7.0 SQLAlchemy==2.1.9

"$folder/venv/bin/python" - "$folder" 2> "$folder/log" <<'EOF' | tee "$folder/seen"
import queue
import sys

from kombu import Connection, Consumer, Producer, Queue


def by_requeue(channel, held):
    for message in held:
        message.requeue()


def by_recover(channel, held):
    channel.basic_recover(requeue=True)


def by_close(channel, held):
    channel.close()


def drained(connection):
    simple = connection.SimpleQueue("jobs")
    while True:
        try:
            message = simple.get(block=False)
        except queue.Empty:
            return
        yield str(message.payload) + (" redelivered" if message.delivery_info.get("redelivered") else "")
        message.ack()


def run(transport, give_back):
    url = "memory://" if transport == "memory" else f"sqla+sqlite:///{sys.argv[1]}/{give_back.__name__}.db"
    with Connection(url) as connection:
        producer = Producer(connection.channel())
        Queue("jobs")(producer.channel).declare()
        for number in range(1, 6):
            producer.publish(number, routing_key="jobs")
        channel, held = connection.channel(), []
        channel.basic_qos(0, 3, False)
        with Consumer(channel, [Queue("jobs")], on_message=held.append):
            while len(held) < 3:
                connection.drain_events(timeout=1)
            give_back(channel, held)
    with Connection(url) as connection:
        print(f"{transport}, {give_back.__name__}:", *drained(connection))


for transport in ("sqlite", "memory"):
    for give_back in (by_requeue, by_recover, by_close):
        run(transport, give_back)
EOF

diff "$folder/seen" - <<'EOF'
sqlite, by_requeue: 4 5 1 2 3
sqlite, by_recover: 4 5 3 2 1
sqlite, by_close: 4 5 3 2 1
memory, by_requeue: 4 5 1 2 3
memory, by_recover: 4 5 3 2 1
memory, by_close: 4 5
EOF
echo "as it was: back at the tail, the last one first, and with the memory transport not at all"
