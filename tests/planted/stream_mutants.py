"""Bugs of the fence that worlds on a simulated stream are to show: what is lost, doubled, or confirmed by two."""

from __future__ import annotations

from typing import Final

from mutant import Mutant

FENCE: Final = "replicated/leading.py"
LOG: Final = "replicated/log.py"
APPENDER: Final = "replicated/appender.py"
STREAMS: Final = ("streams",)
SPOOL: Final = ("replicated/test_spool.py",)
ANEW: Final = ("replicated/test_reading_anew.py",)
CONFORMANCE: Final = ("log/test_log_conformance.py",)
STREAM_MUTANTS: Final = (
    Mutant(
        "an append without an answer is sent again",
        FENCE,
        "if await self._was_stored(parts, epoch_record):\n                        return first\n",
        "continue\n",
        STREAMS,
        "alone: what was stored refuses its repetition, and the broker ends though nobody overtook it",
    ),
    Mutant(
        "an expectation is taken out of a refusal while the broker runs",
        FENCE,
        '                raise Overtaken(f"an append was refused, entry {outcome.last} is there")\n',
        "                self.position = outcome.last\n                continue\n",
        STREAMS,
        "fence: it appends behind the claim of another one",
    ),
    Mutant(
        "an append without an answer is confirmed",
        FENCE,
        "            if isinstance(outcome, Unknown):\n                await self._wait(outcome, pause_s)\n",
        "            if isinstance(outcome, Unknown):\n                return first\n",
        STREAMS,
        "durable: what was confirmed never came to the stream",
    ),
    Mutant(
        "a refused append is confirmed",
        FENCE,
        '                raise Overtaken(f"an append was refused, entry {outcome.last} is there")\n',
        "                return first\n",
        STREAMS,
        "durable: a deposed broker goes on confirming",
    ),
    Mutant(
        "a claim is not waited for",
        FENCE,
        "            pause_s = await self._wait(outcome, pause_s)\n\n    async def read",
        "            self.position = expected + 1\n            return self.position\n\n    async def read",
        STREAMS,
        "claimed, or liveness: it reads up to an entry that may be another's, or never come",
    ),
    Mutant(
        "INFO is believed: a log is led without a claim",
        FENCE,
        "                expected = outcome.last\n                continue\n            open_upto",
        "                self.position = (await self.stream.info()).last\n"
        "                return self.position\n            open_upto",
        STREAMS,
        "claimed: whoever led before still leads",
    ),
    Mutant(
        "what was read ends where a replica ends",
        FENCE,
        "                yield some\n            else:\n                await self._pause(PAUSE_S)\n",
        "                yield some\n            else:\n                return\n",
        STREAMS,
        "read back: a replica that is behind is believed",
    ),
    Mutant(
        "what an append came to is read without a claim",
        FENCE,
        "        ours = list(parts)\n        while True:\n",
        "        ours = list(parts)\n"
        "        if not (some := await self._some(before + 1)):\n"
        "            return False\n        while True:\n",
        STREAMS,
        "alone: what was not there yet comes later, and refuses its repetition",
    ),
    Mutant(
        "an epoch record goes in behind entries that were not read",
        FENCE,
        "                expected = await self._own_end(before, ours, outcome.last)\n",
        "                expected = outcome.last\n",
        STREAMS,
        "fence: it deposes another broker, and neither of them leads",
    ),
    Mutant(
        "entries of others between two of its own are not seen",
        FENCE,
        "            if not is_own:\n",
        "            if is_own is None:\n",
        STREAMS,
        "fence: it goes on behind the claim of another one",
    ),
    Mutant(
        "the parts of an append are sent one by one",
        FENCE,
        "                outcome = await self.stream.append(parts, self.position)\n            if",
        "                for index, part in enumerate(parts):\n"
        "                    outcome = await self.stream.append([part], self.position + index)\n"
        "                    if not isinstance(outcome, Acked):\n"
        "                        break\n"
        "            if",
        STREAMS,
        "whole: an append is stored in part",
    ),
    Mutant(
        "two appends are in flight",
        FENCE,
        "        self.stream.begin(parts, self.position, told)\n",
        "        self.stream.begin(parts, self.position, lambda outcome: None)\n"
        "        self.stream.begin(parts, self.position + len(parts), told)\n",
        STREAMS,
        "once, or fence: numbers are compared, so the second fits behind whatever came before it",
    ),
    Mutant(
        "the position stays where it was behind an epoch record of its own",
        FENCE,
        "        self._check_own(before, ours, between)\n        self.position = outcome.sequence\n",
        "        self._check_own(before, ours, between)\n",
        STREAMS,
        "alone: its next append is refused",
    ),
    Mutant(
        "a refusal by a server that has not read all of it is final",
        FENCE,
        "            if isinstance(outcome, Refused) and outcome.last > self.position:\n",
        "            if isinstance(outcome, Refused):\n",
        STREAMS,
        "alone: a broker ends with each election",
    ),
    Mutant(
        "an append that came late is taken for one that did not come",
        FENCE,
        "        return between[0].body == ours[0]\n",
        "        return False\n",
        STREAMS,
        "once: it is stored a second time",
    ),
    Mutant(
        "a claim that may still come is forgotten",
        FENCE,
        "                if expected >= open_upto:\n",
        "                if expected >= -1:\n",
        ("replicated/test_stream_worlds.py",),
        "a broker is deposed by a claim of its own",
    ),
    Mutant(
        "a stream is trimmed beyond its end",
        LOG,
        "                await fence.stream.purge(log_start)\n",
        "                await fence.stream.purge(fence.position + 10)\n",
        CONFORMANCE,
        "the numbering jumps, and everything is gone",
    ),
    Mutant(
        "a stream is trimmed above its checkpoint",
        LOG,
        "                await fence.stream.purge(log_start)\n",
        "                await fence.stream.purge(fence.position)\n",
        CONFORMANCE,
        "what the log says it begins with is gone",
    ),
    Mutant(
        "a stream is trimmed before its checkpoint is stored",
        LOG,
        "        self._appender.put(parts, partial(self._trimmed, history.log_start, done))\n",
        "        assert self._fence is not None\n"
        "        self._spawn(self._purge(self._fence, history.log_start, done))\n"
        "        self._appender.put(parts, partial(self._trimmed, history.log_start, done))\n",
        ("replicated/test_log_in_storms.py",),
        "a crash in between leaves a log that says it begins where nothing is",
    ),
    Mutant(
        "a deposed broker goes on",
        APPENDER,
        "        except Overtaken as overtaken:\n            self._on_failed(",
        "        except Overtaken as overtaken:\n"
        "            self._jobs.popleft()[1](0)\n            return\n            self._on_failed(",
        CONFORMANCE,
        "what another one refused is confirmed",
    ),
    Mutant(
        "what stands in the spool is believed without its checksum",
        "replicated/spool.py",
        "            return read_records(self._ops, self.path_of(stretch), offsets)\n",
        '            with open(self.path_of(stretch), "rb") as file:\n'
        "                data = file.read()\n"
        "            return [(layout.record_at(data, at, len(data)) or [None])[0] for at in offsets]\n",
        SPOOL,
        "verified: a bit that turned on this machine's disk is handed to a consumer",
    ),
    Mutant(
        "what the spool has in part is taken for all there is",
        "replicated/reading_back.py",
        "        if None in found:\n            raise",
        "        if not any(found):\n            raise",
        SPOOL,
        "verified: a message is set aside as damaged, and the stream has it",
    ),
    Mutant(
        "a place of an entry that was purged is asked for",
        "replicated/reading_back.py",
        "        while self.places.has(stretch):  # what was given up may be purged, and is asked for no more\n",
        "        while True:\n",
        SPOOL,
        "given up: it asks for ever for what is nowhere",
    ),
    Mutant(
        "an epoch record between two batches moves the places behind it",
        "replicated/places.py",
        "        while len(ends) < index:\n            ends.append(at)\n",
        "",
        SPOOL,
        "places: another entry is fetched",
    ),
    Mutant(
        "a stretch is given up with its last entries",
        "replicated/places.py",
        "if name + len(ends) <= log_start]",
        "if name < log_start]",
        SPOOL,
        "given up: what lives is nowhere",
    ),
    Mutant(
        "what was begun and not acked is taken for stored",
        FENCE,
        "            self.position = outcome.sequence\n            return True\n        return False\n",
        "            self.position = outcome.sequence\n        return True\n",
        STREAMS,
        "durable: what was confirmed never came to the stream",
    ),
    Mutant(
        "what was begun and not acked is appended again",
        APPENDER,
        "self._epoch_record, outcome)\n",
        "self._epoch_record)\n",
        ("replicated/test_log_in_storms.py",),
        "what was stored refuses its repetition, and the broker ends though nobody overtook it",
    ),
    Mutant(
        "an append is sent while another one is in flight",
        APPENDER,
        "        if not self._is_busy:\n            self._begin()\n",
        "        self._begin()\n",
        ("replicated/test_appender.py",),
        "it expects what the one before expects, and is refused",
    ),
    Mutant(
        "a reading that is over is asked again",
        LOG,
        "        if taking is None or taking.is_spent:\n",
        "        if taking is None:\n",
        ANEW,
        "a start whose replay lacked a body waits for ever",
    ),
    Mutant(
        "what was read before it is read anew stays known",
        LOG,
        "            self.history.begin_again()\n",
        "",
        ANEW,
        "the messages of half a log are lost",
    ),
    Mutant(
        "a body that is gone ends who stands by",
        "serving/which_log.py",
        "        except ReadAgain:  # a body",
        "        except ZeroDivisionError:  # a body",
        ANEW,
        "a spool may be lost at any time",
    ),
)
