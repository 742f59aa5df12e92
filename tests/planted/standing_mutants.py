"""Bugs of who stands by: what it claims and when, what it knows then, where it sends clients; and of the room."""

from __future__ import annotations

from typing import Final

from mutant import CLIENT, Mutant

TAKING: Final = "replicated/taking_over.py"
HEARING: Final = "replicated/standing_by.py"
HISTORY: Final = "replicated/history.py"
FENCE: Final = "replicated/leading.py"
LOG: Final = "replicated/log.py"
STANDING: Final = ("standing",)
FOLLOWING: Final = ("replicated/test_standing_by.py",)
STANDING_MUTANTS: Final = (
    Mutant(
        "silence counts while nothing can be read",
        TAKING,
        "            except StreamAway:\n                standing.is_deaf()\n",
        "            except StreamAway:\n                pass\n",
        FOLLOWING,
        "a broker that is cut off from the servers claims a log that another one leads",
    ),
    Mutant(
        "the last word of another run is believed",
        HEARING,
        "return word is not None and word.is_last and word.run == self.led_by",
        "return word is not None and word.is_last",
        FOLLOWING,
        "what a broker said that ended long ago deposes one that lives",
    ),
    Mutant(
        "what was known before a gap is kept",
        TAKING,
        "                self._history.begin_again()\n                await self._put(Mark.AGAIN)\n",
        "                self._history.begin_again()\n",
        (*FOLLOWING, *STANDING),
        "T1: it leads with messages that ended where it did not read",
    ),
    Mutant(
        "what was trimmed behind it counts for ever",
        HISTORY,
        "            self.stretches.start_at(says.log_start)\n",
        "",
        FOLLOWING,
        "I11: whoever takes over counts what is gone, and copies all the time",
    ),
    Mutant(
        "a claim leaves the log to nobody",
        TAKING,
        "await fence.claim(self._claim(), self._history.read_to, gives_way)",
        "await fence.claim(self._claim(), self._history.read_to)",
        FOLLOWING,
        "of two that claim at once the second deposes the first",
    ),
    Mutant(
        "who has claimed does not read the rest",
        TAKING,
        "            async for entries in fence.read(self._history.read_to + 1, self.position):\n",
        "            async for entries in fence.read(self.position, self.position):\n",
        STANDING,
        "T1: what the old leader appended at the last moment is lost",
    ),
    Mutant(
        "an idle broker does not look whether it still leads",
        FENCE,
        'return "an entry is there" if found and self.position == position else ""\n',
        'return "an entry is there" if found and self.position < position else ""\n',
        STANDING,
        "T4: it goes on handing out what another one hands out, too",
    ),
    Mutant(
        "who stands by hears itself",
        HEARING,
        "        if word.run and word.run == self.own_run:\n            return\n",
        "",
        STANDING,
        "T5: it sends clients to itself while it reads the rest",
    ),
    Mutant(
        "what is read by who follows is not replayed",
        "serving/which_log.py",
        "        for batch in found or ():\n",
        "        for batch in (found or ())[1:]:\n",
        STANDING,
        "T1: a state with holes leads",
    ),
    Mutant(
        "a state with a gap is not thrown away",
        "serving/which_log.py",
        "        view.engine.begin_again()\n",
        "",
        STANDING,
        "T1: it leads with messages that ended where it did not read",
    ),
    Mutant(
        "what is over is never forgotten",
        "core/core.py",
        "            self._replay.tidy(unix_ms)\n",
        "            self._replay.tidy(0)\n",
        ("core/test_core_following.py",),
        "I11: who follows for weeks has all sessions that ever were",
    ),
    Mutant(
        "log time begins anew with who takes over",
        "serving/recovering.py",
        "        self._engine.start(self._log.now_ms)\n",
        "        self._engine.start(0)\n",
        (
            "replicated/test_brokers_on_a_stream.py"
            "::test_who_stands_by_takes_over_when_the_other_one_dies",
        ),
        "log time goes back: a batch states one that is older than what stands before it",
    ),
    Mutant(
        "who stands by names nobody",
        "net/referring.py",
        '**({"leader": active} if active else {})',
        '**({} if active else {"leader": active})',
        ("conformance/test_several_brokers_in_both.py",),
        "clients try all others before the one that leads",
    ),
    Mutant(
        "a named server is dialled again and again",
        "session/rounds.py",
        "        fresh = [place for place in fresh if place not in self._tried]\n",
        "        fresh = [place for place in fresh if place not in self._tried or place == self._named]\n",
        ("client/test_several_places.py",),
        "two that name each other keep a client busy without a pause",
        CLIENT,
    ),
    Mutant(
        "a server that is behind is asked to lead the stream",
        "replicated/apart.py",
        "if name != beside and name not in info.behind]",
        "if name != beside]",
        ("replicated/test_apart.py",),
        "an election that need not be: 4 to 9 s without an append",
    ),
    Mutant(
        "half a log that is moved is believed",
        HISTORY,
        "        if self.half_of and not self.is_for_move:\n",
        "        if self.half_of and self.is_for_move:\n",
        ("replicated/test_moving_logs.py",),
        "a broker leads with what came so far, and the rest is lost",
    ),
    Mutant(
        "a log that was moved away is led",
        HISTORY,
        "        if self.moved_to:\n            raise",
        "        if self.moved_to and self.is_for_move:\n            raise",
        ("replicated/test_moving_logs.py",),
        "two brokers lead two copies of one log",
    ),
    Mutant(
        "room is granted up to the end of a stream",
        "replicated/stream_space.py",
        "        self._reserve_bytes = RESERVE_SEGMENTS * stretch_bytes\n",
        "        self._reserve_bytes = 0 * stretch_bytes\n",
        ("replicated/test_full_stream.py::test_publishes_are_refused_while_the_rest_goes_on",),
        "a full stream refuses acks and copies, and nothing frees it any more",
    ),
    Mutant(
        "what was appended since takes no room",
        LOG,
        "        self._space.appended(sum(map(len, parts)))\n",
        "",
        ("replicated/test_full_stream.py::test_publishes_are_refused_while_the_rest_goes_on",),
        "between two looks more is granted than there is",
    ),
)
