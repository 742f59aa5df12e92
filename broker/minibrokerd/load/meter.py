"""What a bench counts and times while it runs. Times are nanoseconds of `perf_counter_ns`."""

from __future__ import annotations

from time import perf_counter_ns, process_time

from minibrokerd.load.histogram import Histogram


class Meter:
    """Figures of one run; producers and consumers write them, the report reads them."""

    def __init__(self) -> None:
        self.publish = Histogram()  # from when a call was due until it was confirmed
        self.end_to_end = Histogram()  # from when a message was due until its handler began
        self.woken = Histogram()  # open loop: how late a call began that a free lane waited for
        self.calls = 0
        self.held_up = 0  # open loop: calls that were due before any lane was free
        self.acked = 0
        self.refused = 0  # messages that the server had no room for
        self.start_ns = 0
        self.last_due_ns = 0
        self.last_send_ns = 0
        self.last_confirm_ns = 0
        self.last_seen_ns = 0
        self.acked_ns = 0  # when the last ack was confirmed
        self.busy_s = 0.0  # CPU time of this process, from the start to the last confirm
        self._busy_before_s = 0.0

    def start(self) -> None:
        """Begin to count."""
        self._busy_before_s = process_time()
        self.start_ns = perf_counter_ns()

    def stop(self) -> None:
        """Note that all that was published is confirmed."""
        self.busy_s = process_time() - self._busy_before_s

    def ack_failed(self, message: object, error: object) -> None:
        """Take back one ack: the server did not want it any more."""
        self.acked -= 1

    def seconds(self, until_ns: int) -> float:
        """Return the time from the start until then; 0 if it never came."""
        return max(until_ns - self.start_ns, 0) / 1e9
