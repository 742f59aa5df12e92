"""One run: a broker with one fault in it, the workload until it ends, and a look at what the next start finds."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fault_client import FaultClient
from fault_ledger import Ledger
from forked_broker import ForkedBroker
from sabotaged_broker import FLAGS, SEGMENT_BYTES, SabotagedBroker
from saboteur import KILL, NO_FILES, NO_SPACE, QUOTA, Fault, Hit, Saboteur

from minibrokerd.log.filelog import FileLog
from minibrokerd.process import exits
from support.broker import COMMAND
from support.raw_client import RawClient

STOP_S = (
    5.0  # from a failed call to the end of the process; under a second unless the machine is busy
)
AHEAD = frozenset({"next.tmp", "reserve.tmp"})  # space is allocated in these, ahead of need


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a run starts on, and which injections go with all of it."""

    name: str
    work: Callable[[FaultClient], None]
    base: Path | None = None  # a data directory to copy
    ledger: Ledger = field(default_factory=Ledger)  # what stands in that
    always: tuple[str, ...] = ()
    program: tuple[str, ...] = COMMAND
    wanted: Callable[[Fault], bool] = bool  # every fault


@dataclass(slots=True)
class Verdict:
    """What a run came to; no `faults` if all is right."""

    outcome: str = ""  # killed, stopped, went on, missed
    confirmed: int = 0
    stop_ms: int = 0
    faults: list[str] = field(default_factory=list)


class Run:
    """One scenario with one fault (None: count the calls) in a directory of its own."""

    def __init__(self, directory: Path, scenario: Scenario, fault: Fault | None) -> None:
        self.data_dir = directory / "data"
        self._log = directory / "broker.log"
        self._scenario = scenario
        self._fault = fault
        self.ledger = scenario.ledger.copy()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        if scenario.base is not None:
            shutil.copytree(scenario.base, self.data_dir)
        trace = directory / "trace"
        self._saboteur = Saboteur(
            self.data_dir, trace, fault, program=scenario.program, always=scenario.always
        )

    def count(self) -> Counter[str]:
        """Run without a fault and return how often each call was made."""
        code, _, _ = self.live()
        assert code == exits.DONE, f"without a fault it ended with {code}"
        faults = self._look()
        assert not faults, faults
        return self._saboteur.counts()

    def judge(self) -> Verdict:
        """Run with the fault, and say whether all went as it must."""
        verdict = Verdict()
        code, ended_s, listened = self.live()
        hits = self._saboteur.hits()
        verdict.outcome = self._outcome(code, hits, listened)
        if verdict.outcome.startswith("WRONG"):
            verdict.faults.append(f"{verdict.outcome}\n{self._log.read_text('utf-8', 'replace')}")
        elif verdict.outcome == "stopped":
            verdict.stop_ms = round(1_000 * (ended_s - hits[-1].unix_s))
            verdict.faults += self._after_a_stop(verdict.stop_ms, hits[-1])
        verdict.faults += self._look()
        verdict.confirmed = self.ledger.confirmed
        return verdict

    def live(self) -> tuple[int, float, bool]:
        """Let a broker live through the workload: (exit code, when it ended, whether it listened)."""
        broker = SabotagedBroker(self._saboteur.command, self.data_dir, self._log)
        if broker.port:
            self._work(broker)
        return *broker.end(), bool(broker.port)

    def torn_bytes(self) -> int:
        """Return how many bytes of a torn batch the log ends with."""
        log = FileLog(self.data_dir, segment_bytes=SEGMENT_BYTES)
        for _ in log.recover():
            continue
        log.abandon()
        return log.report.torn_bytes

    def _work(self, broker: SabotagedBroker) -> None:
        try:
            client = FaultClient(broker.port, self.ledger)
        except ConnectionError:
            return
        try:
            self._scenario.work(client)
        except ConnectionError:
            return  # it ended under the client: how, its exit code says
        finally:
            client.close()
        broker.stop()

    def _outcome(self, code: int, hits: list[Hit], listened: bool) -> str:
        fault = self._fault
        assert fault is not None
        if not hits:
            return "missed" if code == exits.DONE else f"WRONG: no fault, and exit code {code}"
        if fault.action == KILL:
            return "killed" if code == -signal.SIGKILL else f"WRONG: killed, and exit code {code}"
        if code == (exits.LOG_FAILED if listened else exits.NOT_WRITABLE):
            return "stopped"
        if code == exits.DONE and all(_may_go_on(fault, hit) for hit in hits):
            return "went on"
        where = ", ".join(hit.path.name for hit in hits)
        return f"WRONG: exit code {code} after a fault of {where}, listened: {listened}"

    def _after_a_stop(self, stop_ms: int, hit: Hit) -> list[str]:
        late = [told for told in self.ledger.confirms if told[0] > hit.unix_s]
        faults = [f"{len(late)} confirms of what was asked for after the fault"] if late else []
        if stop_ms > 1_000 * STOP_S:
            faults.append(f"it took {stop_ms} ms to stop")
        return faults

    def _look(self) -> list[str]:
        """Start again without a fault, and compare what is there with the ledger."""
        try:
            server = ForkedBroker(self.data_dir, self._log.with_name("look.log"), *FLAGS)
        except AssertionError as error:
            return [f"the next start failed: {error}"]
        try:
            client = RawClient("127.0.0.1", server.port)
            faults = self.ledger.compare(client)
            client.close()
        finally:
            code = server.stop()
        return faults + ([f"the next life ended with {code}"] if code else [])


def _may_go_on(fault: Fault, hit: Hit) -> bool:
    """Whether a broker may live on: only space that is allocated ahead, or kept for torn bytes, can wait.

    And nothing was ever written to a directory that was opened to be listed.
    """
    if fault.call == "close" and hit.path.name == "data":
        return True
    if hit.path.suffix == ".index" and fault.call in ("openat", "pwrite64", "close"):
        return True  # an index is a help and no more
    if fault.call == "pread64" and hit.path.name.startswith("segment-"):
        return True  # each record is read alone then; what is lost of it, the ledger knows
    ahead = hit.path.name in AHEAD and fault.call in ("openat", "fallocate", "fdatasync", "rename")
    return fault.action in (NO_SPACE, QUOTA, NO_FILES) and (
        ahead or hit.path.name.startswith("torn-")
    )
