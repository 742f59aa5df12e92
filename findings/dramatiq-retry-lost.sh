#!/usr/bin/env bash
# dramatiq 2.2.1: a retry that the broker does not take at that moment is lost, and the message is acknowledged.
#
# dramatiq's guide: a message is acknowledged when it has been processed, and one that fails is tried again; a worker that
# loses its broker gives the message back. Retries puts the copy for the next try from its after_process_message. The errors of
# that hook are logged and swallowed, as those of any middleware, and the message is acked: not failed, not in the
# dead letters, not in a queue. The brokers it comes with try a few times themselves, which hides short faults; whoever writes
# a broker for dramatiq, or runs one whose publishing can be refused while acks pass (a full disk, a length limit, a memory
# alarm), loses each job that failed in that time. What to do: a Retries of one's own that calls message.fail() when enqueue()
# raises (second run), so that the job is nacked and becomes a dead letter, or an enqueue() that waits.
#
# It needs python3 and the Python Package Index; it ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install dramatiq==2.2.1

"$folder/venv/bin/python" - 2> "$folder/log" <<'EOF' | tee "$folder/seen"
import threading

import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import Retries


class Full(StubBroker):
    """dramatiq's broker for tests, which takes no new message while it is full; acks pass."""

    full = False

    def enqueue(self, message, *, delay=None):
        if self.full:
            raise ConnectionClosed("no room")
        return super().enqueue(message, delay=delay)


class Careful(Retries):
    """Fails the message when its copy was not taken."""

    def after_process_message(self, broker, message, **more):
        try:
            super().after_process_message(broker, message, **more)
        except ConnectionClosed:
            message.fail()


def run(retries):
    broker, runs, settled = Full(middleware=[retries]), [], threading.Event()

    @dramatiq.actor(broker=broker, max_retries=3, min_backoff=1, max_backoff=1)
    def pay(number):
        runs.append(number)
        broker.full = len(runs) == 1  # for the first try and its retry
        raise RuntimeError("payments do not answer")

    worker = dramatiq.Worker(broker, worker_timeout=50)
    worker.start()
    pay.send(17)
    broker.queues["default"].join()
    broker.full = False
    settled.wait(1)  # a retry would come in this time
    worker.stop()
    waiting = sum(queue.qsize() for queue in broker.queues.values())
    print(f"{type(retries).__name__}: {len(runs)} of 4 runs, {waiting} waiting, {len(broker.dead_letters)} dead letters")


run(Retries())
run(Careful())
EOF
grep -c "Unexpected failure in after_process_message" "$folder/log" | sed 's/^/lines in the log: /' | tee -a "$folder/seen"

diff "$folder/seen" - <<'EOF'
Retries: 1 of 4 runs, 0 waiting, 0 dead letters
Careful: 1 of 4 runs, 0 waiting, 1 dead letters
lines in the log: 1
EOF
echo "as it was: the job ran once, is acknowledged and in no queue"
