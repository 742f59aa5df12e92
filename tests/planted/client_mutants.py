"""Bugs of the client: what it takes back, what it sends again, and what its frames may hold."""

from __future__ import annotations

from typing import Final

from mutant import CLIENT, Mutant

CANCEL_MUTANTS: Final = (
    Mutant(
        "a caller of a routed group hears of the first message in it",
        "session/publishes.py",
        "run.part(at, count) if count else run.confirm(at)",
        "run.part(at, count) if count else run.confirm(0)",
        ("client/test_routing.py", "client/test_machine_model.py"),
        "5.15: a caller takes the message of another one for its own",
        CLIENT,
    ),
    Mutant(
        "a piece of a routed group that was refused is published to a queue",
        "session/outbox.py",
        "        part = type(self)(self.where, self.opened_ms)\n",
        "        part = PublishGroup(self.where, self.opened_ms)\n",
        ("client/test_routing.py", "client/test_machine_model.py"),
        "5.15: what is tried again never reaches the exchange",
        CLIENT,
    ),
    Mutant(
        "publishes with different routing keys overtake each other",
        "session/exchange_wishes.py",
        "    return MARK + exchange, where[1], exchange,",
        "    return MARK + exchange + routing_key, where[1], exchange,",
        ("client/test_routing.py",),
        "a queue gets what one caller published in another order",
        CLIENT,
    ),
    Mutant(
        "a cancelled receive waits on at the server",
        "session/asking.py",
        "        if op in _WITHDRAWN and (request is None or request.asked):\n",
        "        if op in _WITHDRAWN and request is None:\n",
        ("sim", "client/test_cancelling.py"),
        "I9: messages go to a caller that is gone",
        CLIENT,
    ),
    Mutant(
        "an answer that nobody took stays begun",
        "session/asking.py",
        "        if op in _WITHDRAWN and (request is None or request.asked):\n",
        "        if op in _WITHDRAWN and request is not None and request.asked:\n",
        ("client/test_cancelling.py",),
        "I4: it is charged when its lease ends",
        CLIENT,
    ),
    Mutant(
        "what was asked on an older connection is not withdrawn",
        "session/asking.py",
        "        if op in _WITHDRAWN and (request is None or request.asked):\n",
        "        if op in _WITHDRAWN and (request is None or request.written):\n",
        ("client/test_withdrawing.py",),
        "I4: its answer was lost with that connection, and is charged",
        CLIENT,
    ),
    Mutant(
        "a withdrawal is asked once",
        "session/asking.py",
        "        self.unwritten = list(self._waiting.values())\n",
        '        self.unwritten = [each for each in self._waiting.values() if each.op != "withdraw"]\n',
        ("client/test_withdrawing.py",),
        "I9: a lost connection keeps what was to be taken back",
        CLIENT,
    ),
    Mutant(
        "an answer that was taken back is kept",
        "session/delivery.py",
        "            self.forget(answer.token, answer)\n",
        "            answer.messages.clear()\n",
        ("client/test_withdrawing.py",),
        "I11: whoever changes his mind often has all that he was ever answered in memory",
        CLIENT,
    ),
    Mutant(
        "a publish that was cancelled leaves all the same",
        "session/session.py",
        "            group.drop_withdrawn()\n",
        "            group.account()\n",
        ("sim", "client/test_publish.py"),
        "what a caller took back before it was written is stored",
        CLIENT,
    ),
)

RESEND_MUTANTS: Final = (
    Mutant(
        "an answered frame ends those before it",
        "session/window.py",
        "        if sequence != self.answered_below:\n",
        "        if sequence < self.answered_below:\n",
        ("client/test_session.py",),
        "I2: the server forgets an outcome that is asked for once more",
        CLIENT,
    ),
    Mutant(
        "a forgotten session's frames go to its successor",
        "session/session.py",
        "        events += [failed(sent.content, unknown) for sent in self.window]\n"
        "        self.window = Window()\n",
        "        events += [failed(sent.content, unknown) for sent in self.window]\n",
        ("client/test_withdrawing.py",),
        "I2: what may have been stored is stored under a new name",
        CLIENT,
    ),
    Mutant(
        "a resume that names nothing",
        "session/session.py",
        "        runs = resume_runs(self._resumed)\n",
        "        runs = resume_runs(self._resumed[:0])\n",
        ("client/test_session.py",),
        "I5: what runs in a client is handed out to another after a crash",
        CLIENT,
    ),
    Mutant(
        "publishes overtake what was refused",
        "session/outbox.py",
        "            if queue in blocked or hold.out or hold.until_ms > now_ms or group.behind:\n",
        "            if hold.until_ms > now_ms or group.behind:\n",
        ("client/test_refused.py",),
        "I10: what a queue had no room for is stored behind what came later",
        CLIENT,
    ),
)

FRAME_MUTANTS: Final = (
    Mutant(
        "a settle frame of any length",
        "session/frame_room.py",
        "        self.messages -= count\n",
        "        self.messages -= min(count, 1)\n",
        ("client/test_frame_limits.py",),
        "the server ends the connection for it, again and again",
        CLIENT,
    ),
    Mutant(
        "more parts than a frame may have",
        "session/frame_room.py",
        "        self.parts -= 1\n",
        "        self.parts -= self.errors == 0\n",
        ("client/test_frame_limits.py",),
        "the same",
        CLIENT,
    ),
    Mutant(
        "a resume larger than a login may be",
        "session/settle_frames.py",
        "MAX_RESUME_RUNS: Final = 128\n",
        "MAX_RESUME_RUNS: Final = 1280\n",
        ("client/test_session.py", "client/test_frame_limits.py"),
        "a client with many leases never comes back",
        CLIENT,
    ),
    Mutant(
        "more frames than may be unanswered",
        "session/window.py",
        "            self.next_sequence - self.answered_below < limits.MAX_UNANSWERED_FRAMES\n",
        "            len(self._sent) < limits.MAX_UNANSWERED_FRAMES\n",
        ("client/test_session.py",),
        "the server counts from the oldest unanswered one on, and ends the connection",
        CLIENT,
    ),
    Mutant(
        "a group for larger frames than the server's",
        "session/session.py",
        "        self.outbox.fit(self.max_frame_bytes)\n",
        "        self.outbox.fit(max(self.max_frame_bytes, limits.MAX_FRAME_BYTES))\n",
        ("client/test_refused.py", "client/test_frame_limits.py"),
        "a server with small segments refuses what the client gathered",
        CLIENT,
    ),
)

LIVES: Final = "client/test_machine_model.py"

MACHINE_MUTANTS: Final = (
    Mutant(
        "a close that takes nothing back",
        "session/machine.py",
        "            self.calls.withdraw_all()\n",
        "            self.calls.fail_all(Closed(why))\n",
        (LIVES,),
        "I4: an answer that nobody will read is begun until its lease ends",
        CLIENT,
    ),
    Mutant(
        "who waits at the end waits on",
        "session/machine.py",
        "        for item in self.timers.take_all():",
        "        for item in self.timers.pop_due(now_ms):",
        ("client/test_closing.py", LIVES),
        "I9: a call has no end, for its connection has one",
        CLIENT,
    ),
    Mutant(
        "a consumer that goes beside an ack stays",
        "session/machine.py",
        "        if self.leaving.retired and not self.session.owed.is_any():\n",
        "        if self.leaving.retired and not self.session.is_open:\n",
        (LIVES,),
        "I9: messages go to a consumer that is gone",
        CLIENT,
    ),
    Mutant(
        "a reconnect forgets a consumer",
        "session/machine.py",
        "        for consumer in self.consumers.values():\n            self._arm(consumer)\n",
        "        for consumer in list(self.consumers.values())[1:]:\n            self._arm(consumer)\n",
        ("sim", LIVES),
        "I9: nothing comes any more",
        CLIENT,
    ),
    Mutant(
        "a deadline that comes late",
        "session/calls.py",
        "            call.slot = self._timers.at(by_ms, call)\n",
        "            call.slot = self._timers.at(by_ms + 1_000, call)\n",
        ("sim", LIVES),
        "I9: a caller waits longer than it said",
        CLIENT,
    ),
    Mutant(
        "a frame without an answer is not sent again",
        "session/session.py",
        "        return [] if self._suspects else frames\n",
        "        return [] if self._suspects else frames[1:]\n",
        ("sim", LIVES),
        "I9: what a lost connection had on its way has no answer",
        CLIENT,
    ),
    Mutant(
        "the parts of a refused group say what its first message said",
        "session/outbox.py",
        "            part.encoding, part.key, part.delay_ms = part._values(0)\n",
        "            part.encoding, part.key, part.delay_ms = self._values(0)\n",
        ("client/test_refused.py", LIVES),
        "I3, I9: a body is decoded as what it is not, and a delay is not kept",
        CLIENT,
    ),
)

CLIENT_MUTANTS: Final = CANCEL_MUTANTS + RESEND_MUTANTS + FRAME_MUTANTS + MACHINE_MUTANTS
