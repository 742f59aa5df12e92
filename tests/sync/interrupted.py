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


def main(url: str, seconds: float) -> None:
    """Publish, receive and ack for so long, under a timer that raises KeyboardInterrupt."""
    broker = minibroker.sync.connect(url, timeout=10)
    queue = broker.queue("interrupted")
    seen: collections.Counter[str] = collections.Counter()
    end = time.monotonic() + seconds

    def publish() -> None:
        while time.monotonic() < end:
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
    while time.monotonic() < end:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.02))
            while time.monotonic() < end:
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
    assert seen["interrupted"] > 20, seen
    assert seen["published"] > 20, seen
    print("done")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
