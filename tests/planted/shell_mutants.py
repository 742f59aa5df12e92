"""Bugs of the shell: when a confirm leaves, when a segment is freed, what a peer may cost."""

from __future__ import annotations

from typing import Final

from mutant import Mutant

SHELL_MUTANTS: Final = (
    Mutant(
        "confirm before write",
        "engine/engine.py",
        "            if wait_us is None:\n                self._log.append(batch, expected)\n",
        "            if wait_us is None:\n"
        "                for outgoing in self._held.pop(batch.number, ()):\n"
        "                    self._send(outgoing)\n"
        "                self._log.append(batch, expected)\n",
        ("sim",),
        "I1: a kill takes what was confirmed",
    ),
    Mutant(
        "two batches in flight",
        "engine/engine.py",
        "            if wait_us is None:\n"
        "                self._log.append(batch, expected)\n"
        "                return\n",
        "            if wait_us is None:\n"
        "                self._log.append(batch, expected)\n"
        "                self._under_way = 0\n"
        "                return\n",
        ("sim",),
        "the torn test: a bad batch with a good one behind it is damage",
    ),
    Mutant(
        "the loop's own job overtakes one that was handed over",
        "log/writer.py",
        "self._handed != self._ended or ",
        "",
        ("log/test_log_at_once.py",),
        "batches in another order than they were applied",
    ),
    Mutant(
        "old segment deleted before the copies are durable",
        "engine/forwarder.py",
        "        if self._copied > self._core.synced:\n            return False\n",
        "        if self._copied > self._core.synced + 1:\n            return False\n",
        ("server/test_forwarder.py", "sim"),
        "I1, C10: a crash finds neither the message nor its copy",
    ),
    Mutant(
        "expiry before queued acks",
        "engine/clock.py",
        "        if turns:\n            self._loop.call_soon(self._soon, turns - 1)\n",
        "        if turns > TURNS:\n            self._loop.call_soon(self._soon, turns - 1)\n",
        ("server/test_engine_order.py",),
        "T5: an ack that waited in the socket loses against its lease",
    ),
    Mutant(
        "an early tick counts as due",
        "engine/engine.py",
        "        self._apply(Tick(self.jitter(), has_room))\n",
        "        now_ms = max(self.clock.now_ms(), self._alarm._at_ms)\n"
        "        self._route(self._core.apply(Tick(self.jitter(), has_room), now_ms, self.clock.unix_ms()))\n"
        "        self._turn_soon()\n",
        ("server/test_engine_order.py", "sim"),
        "I5, I9: a lease or a delay ends as much too early as the loop's timers are",
    ),
    Mutant(
        "the end of a hold is hidden",
        "core/core.py",
        "        if self.store.hold_until_ms:  # also when it is over: the queues learn that from a tick\n",
        "        if self.store.now_ms < self.store.hold_until_ms:\n",
        ("server/test_engine_order.py",),
        "I9: after a crash a backlog stands still until some later timer",
    ),
    Mutant(
        "a stop that forgets what is open",
        "engine/engine.py",
        "        return not (self._under_way or self._closed or self._open)\n",
        "        return not (self._under_way or self._closed)\n",
        ("server/test_engine_room.py",),
        "N15: a lazy publish was confirmed, and a clean stop loses it",
    ),
    Mutant(
        "no limit before login",
        "net/connection.py",
        "        most = limits.MAX_LOGIN_FRAME_BYTES if self.phase is Phase.NEW else limits.MAX_FRAME_BYTES\n",
        "        most = limits.MAX_FRAME_BYTES\n",
        ("server/test_connection_limits.py",),
        "N1: a stranger makes the server wait for 16 MiB",
    ),
    Mutant(
        "a crowd of strangers in one turn",
        "net/turns.py",
        "        if self._left <= 0:\n",
        "        if self._left < -len(self._waiting) - 9_999:\n",
        ("server/test_turns.py",),
        "N1: whoever has logged in waits until a thousand others are refused",
    ),
    Mutant(
        "output without end",
        "net/connection.py",
        "        if transport.get_write_buffer_size() > limits.OUTPUT_HARD_BYTES:\n",
        "        if transport.get_write_buffer_size() > limits.OUTPUT_HARD_BYTES * 64:\n",
        ("server/test_connection_limits.py",),
        "N6, I11: a peer that does not read is never cut off",
    ),
    Mutant(
        "unfinished frames without end",
        "net/unfinished.py",
        "        while self.bytes > limits.MAX_UNFINISHED_BYTES:\n",
        "        while self.bytes > limits.MAX_UNFINISHED_BYTES * len(self._sizes):\n",
        ("server/test_connection_limits.py",),
        "N1, I11: a hundred peers that never send the last byte take all memory",
    ),
    Mutant(
        "an error in the middle of a step is lived with",
        "engine/engine.py",
        "            self._apply(command)\n        except Exception as error:\n"
        "            self.stop_at(error)\n            raise\n",
        "            self._apply(command)\n        except Exception as error:\n"
        "            self._core.store.jitter = float(not error)\n            raise\n",
        ("server/test_fail_stop.py",),
        "I1: half of a step is in memory, none in the log, and answers go on",
    ),
)
