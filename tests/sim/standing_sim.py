"""Worlds on a stream in which other brokers stand by, and take over from one that is dead, paused or only silent.

Its laws, beside those of all worlds:

T1  whoever takes over knows what a fresh start would know
T2  it leads within a bound, once the faults are over
T3  log time never goes back
T4  who was overtaken ends, though it has nothing to append
T5  nobody who stands by sends clients to itself
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any, cast

from sim_capabilities import drawn
from sim_ledger import Ledger
from sim_loop import SimulatedLoop
from sim_network import Link
from sim_state import difference, state_of
from sim_stream import NO_FAULTS, SimStream
from sim_stream_broker import StreamBroker
from sim_stream_log import StreamTime
from sim_world import SECOND_US
from stream_sim import LONG_STARTS_US, StreamWorld

from minibrokerd.log import format as layout
from minibrokerd.replicated import log as replicated_log
from minibrokerd.replicated import standing_by, taking_over
from minibrokerd.replicated.failures import AnotherLeads
from minibrokerd.replicated.leading import MOST_PAUSE_S

STRETCHES = (2_048, 4_096, 8_192)  # bytes; small, for a trim is to overtake who follows
MOST_FROZEN_US = 10 * SECOND_US


class StandingWorld(StreamWorld):
    """One run of everything, with one or two brokers that stand by."""

    def __init__(self, seed: int, **options: Any) -> None:
        if options.get("capabilities", ()) is None:
            options["capabilities"] = drawn(seed)
        # Two that lead for a moment hand out twice as fast: no rate is kept then.
        options["capabilities"] = [
            name for name in options.get("capabilities", ()) if name != "rate"
        ]
        super().__init__(seed, **options)
        self.segment_bytes = self.own.choice(STRETCHES)
        self.length_us *= 2
        self.most_standing = self.own.choice((1, 1, 2))
        scale = self.own.choice((0.1, 0.3))
        self.silent_us = round(scale * SECOND_US)
        limits = self.memory.limits
        limits[standing_by, "SILENT_S"] = scale
        for module in (replicated_log, standing_by, taking_over):
            limits[module, "BEAT_S"] = scale / 4
        limits[taking_over, "FOLLOW_S"] = scale / 10
        self.late: dict[StreamBroker, dict[int, Link]] = {}  # they led, and do not know yet
        self.met: Counter[str] = Counter()  # what is hard, and was there
        self.leaderless_us = 0  # since when
        self.thawed_us = 0  # by then nothing stands still any more
        self.faults.add(self.own, pause=self.pause, kill_standby=self.kill_standby)

    # -- who leads ------------------------------------------------------------------------------

    def _start(self) -> None:
        """Let the machine be back on which a broker died."""
        if self.ended:
            return
        if not self.starts:
            self.come()
        cold = not self.draining and self.own.random() < 0.1
        missing = self.most_standing - len(self.coming)
        for _ in range(missing):
            self.come(standby=not cold)

    def come(self, *, standby: bool = False) -> None:
        """Let one more broker come to lead."""
        broker = self.make_broker(standby=standby)
        broker.compare, broker.named = self._compare, self._judge_name
        self.begin(broker)

    def _came(self, broker: StreamBroker, error: BaseException | None) -> None:
        if error is not None or broker not in self.coming:
            super()._came(broker, error)
            return
        self.met["agains"] += broker.agains
        before = cast(StreamBroker | None, self.broker)
        if before is not None and before.claim > broker.claim:
            self.coming.remove(broker)
            self.late[broker] = {}  # it was overtaken while it read
            return
        if before is not None:
            self.met["deposed"] += 1
            self._overtaken(before)
        self.met["takeovers"] += broker.standby
        self._judge_time(broker)
        super()._came(broker, error)
        self._start()

    def _overtaken(self, before: StreamBroker) -> None:
        """Another one leads: as far as the books go the life of this one is over, and it goes on."""
        self.note(f"{before.name} is overtaken")
        self.crashes += 1
        self.checker.crashes += 1
        self.checker.returned()
        self.checker.crashed_us = self.loop.now_us
        self._count_damaged(before)
        self.laws.count_dropped(self._counters(before))
        self._kept = {}
        for link in self.links.values():
            link.troubled = True
        self.late[before], self.links = self.links, {}
        self.broker = None

    def _broker_failed(self, broker: StreamBroker, error: BaseException) -> None:
        if broker not in self.late:
            super()._broker_failed(broker, error)
            return
        self.note(f"{broker.name} ends: {error}")
        if not isinstance(error, AnotherLeads):
            self._give_up("E1", f"the log failed, and nobody else leads: {error}")
        broker.life.over = True
        for link in self.late.pop(broker).values():
            if link.is_open:
                link.down.end(link.client_lost)

    def _end_life(self, *, silent: bool) -> None:
        self.leaderless_us = self.loop.now_us
        super()._end_life(silent=silent)

    # -- what goes wrong ------------------------------------------------------------------------

    def pause(self) -> None:
        """Stop a process for a while, as SIGSTOP does."""
        broker = self.own.choice([self.broker, *self.coming])
        if broker is not None:
            # Who stands by for so long that what it has not read is trimmed meanwhile.
            silences = (0.2, 1, 3) if broker is self.broker else (1, 10, 30)
            us = round(self.silent_us * self.own.choice(silences))
            broker.life.stop_until(self.loop.now_us + us)

    def kill_standby(self) -> None:
        """Kill one that stands by; it is back at once."""
        if self.coming:
            broker = self.own.choice(self.coming)
            broker.life.over = True
            self.coming.remove(broker)
            self.loop.at(self.loop.now_us + self.silent_us, self.life, self._start)

    def _heal(self) -> None:
        for broker in self.coming:
            if self.own.random() < 0.5:  # what is trimmed most is trimmed when there is peace
                broker.life.stop_until(self.loop.now_us + self.own.randrange(MOST_FROZEN_US))
        self.thawed_us = self.loop.now_us + MOST_FROZEN_US
        super()._heal()

    def _drain(self) -> None:
        """Let the leader die once more: one that stood still, and lacks what was trimmed, is to take over."""
        self._live(self.thawed_us, lambda: self.ended)
        if self.broker is not None and not self.ended:
            self.crashed(power=False)
        super()._drain()

    # -- laws -----------------------------------------------------------------------------------

    def _compare(self, broker: StreamBroker) -> None:
        """T1: whoever takes over knows what a fresh start knows."""
        stream = SimStream(Random(1), NO_FAULTS, list(self.stream.entries), self.stream.first)
        stream.entries = [entry for entry in stream.entries if entry.sequence <= broker.claim]
        stream.last = broker.claim
        stream.has = dict.fromkeys(stream.has, stream.last)
        if stream.first > 1 + max(broker.log.history.log_start, 0):
            return  # another one leads meanwhile, and has trimmed
        loop = SimulatedLoop()
        time = StreamTime(stream, loop, 1_000, Random(1))
        fresh = StreamBroker(
            time, "fresh", Random(1), loop, self.disk, Random(1), self.segment_bytes, self.unix_ms,
            lambda: 100, self._failed, self.memory, Ledger(lambda: 0), self.logs,
        )  # fmt: skip
        states: list[dict[str, Any]] = []
        fresh.compare = lambda fresh: states.append(state_of(fresh.core.store))
        fresh.begin(lambda *_: None)
        loop.run_until(LONG_STARTS_US, lambda: bool(states))
        fresh.life.over = True
        if not states:
            self.checker.violation("T1", f"nobody can start behind {broker.name}")
        elif differs := difference(state_of(broker.core.store), states[0]):
            self.checker.violation("T1", f"{broker.name} knows of {differs}")

    def _judge_time(self, broker: StreamBroker) -> None:
        """T2: once the faults are over it is not long until somebody leads."""
        if not (self.draining and broker.standby and self.broker is None):
            return
        most_us = self.silent_us * 2 + 200 * self.time.tick_us + round(2 * MOST_PAUSE_S * SECOND_US)
        took_us = self.loop.now_us - max(self.leaderless_us, self.thawed_us)
        if took_us > most_us:
            self.checker.violation("T2", f"{took_us} us went by until {broker.name} led")

    def _judge_name(self, broker: StreamBroker, address: str) -> None:
        """T5: a client that came here for nothing would come here for ever."""
        if address.startswith(f"{broker.name}:"):
            self.checker.violation("T5", f"{broker.name} stands by, and names itself")

    def _judge(self) -> None:
        """T3 and T4, beside all that is judged in other worlds."""
        super()._judge()
        if self.late and not self.ended:
            names = [broker.name for broker in self.late]
            self.checker.violation("T4", f"{names} were overtaken, and do not know")
        before_ms = 0
        for entry in self.stream.entries:
            header = layout.decode_header(entry.body, 0)
            if header is not None and not entry.is_epoch:
                if header.now_ms < before_ms:
                    text = f"log time goes back from {before_ms} to {header.now_ms} ms"
                    self.checker.violation("T3", text)
                    return
                before_ms = header.now_ms
