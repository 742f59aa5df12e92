"""A world whose broker has its log in a stream, with the faults of that instead of those of a disk.

    world = StreamWorld(seed)
    world.run()

Another broker may stand by: it leads when nothing is heard of the first one, which need not be dead.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from random import Random
from typing import Any

from sim_broker import contents
from sim_ledger import Ledger
from sim_loop import SimulatedLoop
from sim_stream import NO_FAULTS, Faults, SimStream
from sim_stream_broker import StreamBroker
from sim_stream_log import StreamTime, TaskTakeOver
from sim_world import SECOND_US, World
from stream_world import MOST

from minibrokerd.log.failures import LogError
from minibrokerd.process import memory
from minibrokerd.replicated import log as replicated_log
from minibrokerd.replicated import stalls, standing_by
from minibrokerd.replicated.failures import AnotherLeads, StreamUnreachable, Trimmed
from minibrokerd.serving import which_log

LONG_STARTS_US = 120 * SECOND_US  # by then a start has come to its end, or given up


class StreamWorld(World):
    """One run of everything; see `World`."""

    def __init__(self, seed: int, **options: Any) -> None:
        capabilities = options.get("capabilities", ())
        if capabilities is not None:
            options["capabilities"] = [name for name in capabilities if name != "log"]
        super().__init__(seed, **options)
        self.own = own = Random(f"stream of {seed}")
        share = {one.name: own.choice((0, 1)) for one in fields(Faults)}
        faults = Faults(**{name: getattr(MOST, name) * on for name, on in share.items()})
        self.stream = SimStream(Random(own.getrandbits(32)), faults)
        self.time = StreamTime(self.stream, self.loop, own.choice((300, 1_000, 5_000)), own)
        self.memory = replace(self.memory, digests=False)
        seconds = lambda: 1_000 + self.loop.now_us / SECOND_US  # noqa: E731
        self.memory.limits.update(
            {
                (replicated_log, "TakeOver"): TaskTakeOver,
                (replicated_log, "monotonic"): seconds,
                (stalls, "monotonic"): seconds,
                (which_log, "monotonic"): seconds,
                (standing_by, "Standing"): partial(standing_by.Standing, clock_s=seconds),
                (memory, "collect_all"): lambda: None,
            }
        )
        self.faults.begin_on_a_stream(own)
        self.coming: list[StreamBroker] = []  # they start

    # -- the broker's lives ---------------------------------------------------------------------

    def make_broker(self, *, standby: bool = False) -> StreamBroker:
        """Return one more broker, which does nothing yet."""
        broker: StreamBroker

        def failed(error: BaseException) -> None:
            self._broker_failed(broker, error)

        self.starts += 1
        broker = StreamBroker(
            self.time, f"broker{self.starts}", self.own, self.loop, self.disk, self.random,
            self.segment_bytes, self.unix_ms, self._disk_latency_us, failed, self.memory,
            self.ledger, self.logs, standby=standby,
        )  # fmt: skip
        return broker

    def _start(self) -> None:
        if self.ended:
            return
        broker = self.make_broker()
        self.begin(broker)
        if not self.draining and self.random.random() < 0.2:
            at_us = self.loop.now_us + round(self.random.expovariate(1 / 20_000))
            self.loop.at(at_us, broker.life, self._killed_at_start, broker)

    def begin(self, broker: StreamBroker) -> None:
        """Let a broker come to lead."""
        self.coming.append(broker)
        broker.begin(self._came)

    def _killed_at_start(self, broker: StreamBroker) -> None:
        if broker in self.coming:
            self.note("killed at its start")
            broker.life.over = True
            self.coming.remove(broker)
            self._start()

    def _came(self, broker: StreamBroker, error: BaseException | None) -> None:
        if broker not in self.coming:
            return
        self.coming.remove(broker)
        if error is None:
            self._started(broker)
            return
        broker.life.over = True
        self.note(f"start refused: {error}")
        self.refusals += 1
        if not isinstance(error, LogError):
            raise error
        # A body that a replay needs and nobody has any more is no end: the log is read anew.
        if not isinstance(error, StreamUnreachable | Trimmed) or not self.may_refuse(broker):
            self._give_up("I12", f"the broker does not start: {error}")
        self.loop.at(self.loop.now_us + SECOND_US // 2, self.life, self._start)

    def may_refuse(self, broker: StreamBroker) -> bool:
        """Whether what makes a start end without damage may be there."""
        return not self.draining

    def _broker_failed(self, broker: StreamBroker, error: BaseException) -> None:
        self.note(f"fail-stop: {error}")
        alone = isinstance(error, AnotherLeads) and not self._has_rival(broker)
        if alone or not isinstance(error, AnotherLeads):
            self._give_up("E1", f"the log failed, and nobody else leads: {error}")
        self.crashed(power=False)

    def _has_rival(self, broker: StreamBroker) -> bool:
        """Whether another broker has claimed the log behind what this one appended."""
        return any(
            claim.sequence > broker.log.position and not broker.log._is_own(claim)
            for claim in self.stream.claims
        )

    def _is_safe(self) -> bool:
        return self.broker is None or not self.broker.log._appender._jobs

    def _heal(self) -> None:
        self.stream.faults = NO_FAULTS
        super()._heal()

    def _recover_twice(self) -> None:
        """I12: what one broker finds in the stream is what the next one finds."""
        stream = self.stream.copy()
        found = self._found_in(stream)
        again = self._found_in(stream.copy())
        if found != again:
            self.checker.violation("I12", f"found {found}, then {again}")

    def _found_in(self, stream: SimStream) -> Any:
        """Return what a broker finds in a stream, by which it is claimed."""
        loop = SimulatedLoop()
        time = StreamTime(stream, loop, 1_000, self.own)
        broker = StreamBroker(
            time, "another", self.own, loop, self.disk, Random(1), self.segment_bytes, self.unix_ms,
            lambda: 100, self._failed, self.memory, Ledger(lambda: 0), self.logs,
        )  # fmt: skip
        ends: list[BaseException | None] = []
        broker.begin(lambda _, error: ends.append(error))
        loop.run_until(LONG_STARTS_US, lambda: bool(ends))
        broker.life.over = True
        return contents(broker.core.store) if ends == [None] else ends
