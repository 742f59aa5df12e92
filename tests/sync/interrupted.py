"""A program whose main thread is interrupted a hundred times, anywhere, while others publish: it goes on."""

from __future__ import annotations

import collections
import random
import signal
import sys
import threading
import time

import minibroker
import minibroker.sync

TIMES = 100
PUBLISHED = 20  # at least, by others meanwhile
MOST_S = 50.0  # far above what it takes


def main(url: str) -> None:
    """Publish, receive and ack until it was interrupted so often, by a timer that raises KeyboardInterrupt."""
    broker = minibroker.sync.connect(url, timeout=10)
    queue = broker.queue("interrupted")
    seen: collections.Counter[str] = collections.Counter()
    end = time.monotonic() + MOST_S

    def goes_on() -> bool:
        is_enough = seen["interrupted"] >= TIMES and seen["published"] >= PUBLISHED
        return not is_enough and time.monotonic() < end

    def publish() -> None:
        while goes_on():
            try:
                queue.publish(b"other")
            except minibroker.OutcomeUnknown:
                seen["torn"] += 1
            else:
                seen["published"] += 1

    threads = [threading.Thread(target=publish) for _ in range(3)]
    for thread in threads:
        thread.start()
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    while goes_on():
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.02))
            while goes_on():
                queue.publish(b"main")
                for message in queue.receive(3):
                    with message.process():
                        seen["received"] += 1
        except KeyboardInterrupt:
            seen["interrupted"] += 1
        except minibroker.MinibrokerError as error:
            seen[type(error).__name__] += 1
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    for thread in threads:
        thread.join(20)
    queue.publish(b"last")
    broker.close()
    assert not any(thread.is_alive() for thread in threads), "one hangs"
    assert seen["interrupted"] >= TIMES, seen
    assert seen["published"] >= PUBLISHED, seen
    print("done")


if __name__ == "__main__":
    main(sys.argv[1])
