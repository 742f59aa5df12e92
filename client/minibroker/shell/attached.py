"""The second connection of a session: heartbeats and renewals that do not need the application's loop.

A thread with a blocking socket, a real one also under gevent (real_threads.py). While a handler computes and the
loop stands still, it goes on sending signs of life and renewing the leases of begun messages, until they have run
for `max_run`. When the loop has not turned for `STUCK_S`, it takes what no handler has begun out of the buffers
and releases it, so that others can work on it. The thread dies with the process, and never keeps it alive.

It sleeps until something is due: at most `TICK_S`, and no more than a sixth of the shortest lease; longer while
nothing is in hand. A delivery whose lease is so short that it could end before that wakes it.

What it touches of the loop's state: it reads lists and dicts through copies that are made in one step, and
takes messages out of buffers one by one with `deque.popleft`, as the loop does, so each goes to one of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from minibroker.contract import limits, wire
from minibroker.contract.errors import MinibrokerError, ProtocolError
from minibroker.session.delivery import drop
from minibroker.session.message import MessageData
from minibroker.session.session import Session
from minibroker.session.settle_frames import frames_naming
from minibroker.session.settlements import BEGUN, ENDED, Run
from minibroker.session.subscription import Subscription
from minibroker.shell.real_threads import Bell, Clock, Flag, start_thread
from minibroker.shell.wires import Wire, connected

if TYPE_CHECKING:
    from minibroker.shell.trust import Trust

logger = logging.getLogger("minibroker")

STUCK_S: Final = 5.0  # a loop that has not turned for this long will not begin what it holds
TICK_S: Final = 1.0  # at most; a third of the shortest lease is looked at twice
IDLE_TICKS: Final = 3  # so many at once while nothing is in hand: less than STUCK_S
LEAST_TICK_S: Final = 0.002
RETRY_S: Final = 1.0


class Owner(Protocol):
    """The shell whose leases are renewed."""

    session: Session
    consumers: dict[int, Subscription]
    address: tuple[str, int]
    trust: Trust | None
    max_run_ms: int

    def lost_runs(self, runs: Sequence[Run]) -> None:
        """Take the answer to a renewal: these are lost. Called by way of `hand_over`."""

    def hand_over(self, function: Callable[..., object], *args: Any) -> None:
        """Have a function called where the session lives; RuntimeError if that has ended."""


class Attached:
    """The thread; `start` it once, `stop` it when the session ends."""

    def __init__(self, driver: Owner) -> None:
        self._driver = driver
        self._stopped = False
        self._bell: Bell | None = None  # while the thread runs
        self._wakes_at = 0.0  # monotonic seconds
        self._wire: Wire | None = None
        self._reader = wire.FrameReader()
        self.connected = Flag()  # between welcome and the end of a connection
        self._session: int | None = None
        self._address = ("", 0)  # that it is connected to
        self._request = 0
        self._extends: set[int] = set()
        self._renewed: dict[MessageData[Any], float] = {}
        self._extended: dict[MessageData[Any], tuple[float, int]] = {}  # when, and for how many ms
        self._pinged_at = 0.0
        self._asked_at = 0.0
        self._turned_at = Clock.monotonic()

    def start(self) -> None:
        """Start the thread."""
        self._bell = Bell()
        start_thread(self._run)

    def stop(self) -> None:
        """Let the thread end; it says nothing more."""
        self._stopped = True
        if self._bell is not None:
            self._bell.ring()

    def close_copy(self) -> None:
        """In a forked child, where the thread does not run: give the descriptors back."""
        self._stopped = True
        if self._wire is not None:
            self._wire.close()
        if self._bell is not None:
            self._bell.close()

    def delivered(self, lease_ms: int) -> None:
        """Note that messages came, or were extended, under a lease of this length."""
        within_ms = 6_000 * IDLE_TICKS * TICK_S
        if lease_ms < within_ms and Clock.monotonic() + lease_ms / 6_000 < self._wakes_at:
            assert self._bell is not None, "only the thread sets when it wakes"
            self._bell.ring()

    def extended(self, message: MessageData[Any], lease_ms: int) -> None:
        """Note that the application asked for a lease of its own length: it is renewed as that."""
        self._extended[message] = (Clock.monotonic(), lease_ms)
        self.delivered(lease_ms)

    def _run(self) -> None:
        """Connect, serve, connect again, until stopped."""
        bell = self._bell
        assert bell is not None, "start() made it"
        while not self._stopped:
            try:
                if self._driver.session.is_open:
                    self._connect()
                    self._serve(bell)
            except (OSError, MinibrokerError) as error:
                logger.debug("the attached connection ended: %s", error)
            except Exception:  # whatever it is, leases must go on being renewed
                logger.exception("the thread that renews leases met an error, and goes on")
            finally:
                self._disconnect()
            if not self._stopped:
                retry_s = min(RETRY_S, max(0.05, self._tick_s()))
                bell.wait(retry_s if self._driver.session.is_open else 0.1)
        self._renewed.clear()  # a circle that the collector would not see (message.py)
        self._extended.clear()
        bell.close()

    def _connect(self) -> None:
        driver, session = self._driver, self._driver.session
        self._session, self._address = session.session_id, driver.address
        self._wire = connected(self._address, driver.trust, limits.LOGIN_DEADLINE_MS / 1000)
        self._reader = wire.FrameReader()
        part = {"op": "attach", "protocol": limits.PROTOCOL_VERSION}
        part |= {"session": self._session, "secret": session.secret}
        if session.token:
            part["token"] = session.token
        self._wire.send(wire.pack_frame({"parts": [part]}))
        while not self.connected.is_set():
            self._receive()

    def _disconnect(self) -> None:
        self.connected.clear()
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _serve(self, bell: Bell) -> None:
        assert self._wire is not None
        self._turned_at = Clock.monotonic()  # nobody asked the loop while there was no connection
        # A server that says nothing more ends no connection: the session may be at another one by now.
        while (
            not self._stopped
            and self._session == self._driver.session.session_id
            and self._address == self._driver.address
        ):
            # Noted before the look: a delivery that comes behind it rings.
            self._wakes_at = Clock.monotonic() + IDLE_TICKS * TICK_S
            self.tick(Clock.monotonic())
            tick_s = self._tick_s()
            self._wakes_at = Clock.monotonic() + tick_s
            if bell.wait(tick_s, self._wire):
                self._receive()

    def _tick_s(self) -> float:
        deliveries = self._driver.session.deliveries.copy().values()
        leases_ms = [delivery.lease_ms for delivery in deliveries if delivery.open > 0]
        leases_ms += [lease_ms for _, lease_ms in self._extended.copy().values()]
        if not leases_ms:
            return IDLE_TICKS * TICK_S
        return min(TICK_S, max(LEAST_TICK_S, min(leases_ms) / 6000))

    def _receive(self) -> None:
        assert self._wire is not None
        for frame in self._reader.feed(self._wire.receive()):
            self._take(frame)

    def _take(self, frame: wire.Frame) -> None:
        op = frame.header.get("op")
        if op == "welcome":
            self.connected.set()
        elif op == "error" and "request" not in frame.header:
            raise ProtocolError(str(frame.header.get("text")))
        elif op == "confirm" and frame.header.get("request") in self._extends:
            self._extends.discard(frame.header["request"])
            runs: list[Run] = list(wire.RUN.iter_unpack(frame.columns))
            if runs:
                self._in_loop(self._driver.lost_runs, runs)

    def _in_loop(self, function: Any, *args: Any) -> None:
        try:
            self._driver.hand_over(function, *args)
        except RuntimeError:  # the loop is closed: nothing will be asked of this thread any more
            self._stopped = True

    # ---- what is due ----

    def tick(self, now: float) -> None:
        """Send what is due at `now` (monotonic seconds)."""
        if now - self._asked_at >= TICK_S / 2:
            self._asked_at = now
            self._in_loop(self._turned)
        if now - self._turned_at > STUCK_S:
            self._release_unbegun()
        self._renew(now)
        if now - self._pinged_at >= self._driver.session.heartbeat_ms / 2000:
            self._pinged_at = now
            self._send([{"op": "ping"}], b"")

    def _turned(self) -> None:
        self._turned_at = Clock.monotonic()

    def _renew(self, now: float) -> None:
        renewed, extended = self._renewed, self._extended
        due = list[MessageData[Any]]()
        self._renewed, still = {}, {}
        for message in self._driver.session.begun_messages():
            if now - message.begun_at > self._driver.max_run_ms / 1000:
                continue
            last = renewed.get(message, message.begun_at)
            if message in extended:
                asked_at, _ = still[message] = extended[message]
                last = max(last, asked_at)
            if now - last >= self._lease_of(message) / 3000:
                due.append(message)
                last = now
            self._renewed[message] = last
        for message in extended.copy().keys() - still.keys():
            if message.state == ENDED:
                extended.pop(message, None)
        if due:
            self._send_parts("extend", due)

    def _lease_of(self, message: MessageData[Any]) -> int:
        """Return how long its lease is, as granted or as the application last asked for, in ms."""
        _, lease_ms = self._extended.get(message, (0.0, message.run.delivery.lease_ms))
        return lease_ms

    def _release_unbegun(self) -> None:
        driver = self._driver
        taken = [
            message
            for consumer in list(driver.consumers.values())
            for message in consumer.take_buffer()
        ]
        # The begins of what runs may wait in the loop that stands still.
        begun = [message for message in driver.session.begun_messages() if message.state == BEGUN]
        if begun:
            self._send_parts("begin", begun)
        if taken:
            logger.warning(
                "the event loop has not turned for %.0f s; %d messages are released",
                STUCK_S,
                len(taken),
            )
            self._send_parts("release", taken)
            self._in_loop(drop, taken)  # the loop keeps the accounts of its deliveries

    def _send_parts(self, op: str, messages: Iterable[MessageData[Any]]) -> None:
        """Send as many frames as it takes; `_request` is the number of the last one."""
        session = self._driver.session
        for parts in frames_naming(
            op, messages, self._lease_of if op == "extend" else _no_value, session.max_frame_bytes
        ):
            self._send(
                [part.header() for part in parts], b"".join([part.columns() for part in parts])
            )
            if op == "extend":
                self._extends.add(self._request)

    def _send(self, parts: list[dict[str, object]], columns: bytes) -> None:
        if self._wire is None:
            return
        self._request += 1
        header: dict[str, object] = {"parts": parts}
        if parts[0]["op"] != "begin":
            header["request"] = self._request
        self._wire.settimeout(limits.LOGIN_DEADLINE_MS / 1000)
        self._wire.send(wire.pack_frame(header, columns))


def _no_value(message: MessageData[Any]) -> None:
    return None
