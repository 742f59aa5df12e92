"""The whole of it at work, as an application has it, while everything dies once.

A Flask application and a Django one under gunicorn, which forks, publish through `minibroker.sync`; two services
of `minibroker worker`, one with two processes, do the work in the loop, in threads and in processes. In the middle
workers are killed, the broker is, and everything is deployed: SIGTERM to all at once, each started again when it
has ended.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sqlite3
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import monotonic, monotonic_ns

from shoppers import Shoppers
from story_books import Kill, Outcome, audited

import minibroker.sync
from support.processes import LOOK_EVERY_S, lasts, look_until
from support.services import STOP_S, Service, free_port

HERE = Path(__file__).parent
QUEUES = ("mails", "photos", "orders")
TIMEOUT_S = 30.0  # of a publish in the applications
REQUEST_S = 60.0  # of a visitor, with all that is tried again


@dataclass(frozen=True, slots=True)
class Tools:
    """Where the programs are: a Python that has minibroker, and how its command is called."""

    python: str
    minibroker: tuple[str, ...]


class Story:
    """One run of it in an empty folder; `close` ends every process."""

    def __init__(self, folder: Path, seed: int, requests: int, tools: Tools) -> None:
        self._random = Random(seed)
        self._requests = requests
        self._tools = tools
        self._stack = ExitStack()
        self._ledger = folder / "ledger"
        self._folder = folder / "app"
        shutil.copytree(HERE / "app", self._folder)
        self._ports = free_port(), free_port(), free_port()
        self.url = f"minibroker://127.0.0.1:{self._ports[0]}"
        self._environment = {
            "MINIBROKER_URL": self.url,
            "PYTHONDONTWRITEBYTECODE": "1",
            "STORY_DATABASE": str(folder / "shop.sqlite"),
            "STORY_LEDGER": str(self._ledger),
            "STORY_TIMEOUT_S": str(TIMEOUT_S),
        }
        with sqlite3.connect(folder / "shop.sqlite") as db:
            db.execute("CREATE TABLE placed (id INTEGER PRIMARY KEY, number INTEGER)")
        db.close()
        self.kills: list[Kill] = []
        self.notes: list[str] = []  # what happened, in words
        self._lives = 1  # of the broker
        self._start()

    def _start(self) -> None:
        directory = ("--data-dir", str(self._folder.parent / "data"), "--segment-bytes", "1M")
        self._broker = self._service("broker", "serve", *directory, port=self._ports[0])
        self._flask = self._gunicorn("flask", "flask_shop:app", self._ports[1])
        self._django = self._gunicorn("django", "django_shop:application", self._ports[2])
        self._alone = self._service("alone", "worker", "work:app")
        self._pair = self._service("pair", "worker", "work:app", "--processes", "2")
        for service in self.services:
            service.await_ready()

    def _service(self, name: str, command: str, *flags: str, port: int = 0) -> Service:
        at = ("--port", str(port)) if port else ()
        says = "listening on" if port else "worker_started"
        return self._added(name, [*self._tools.minibroker, command, *flags, *at], says)

    def _gunicorn(self, name: str, application: str, port: int) -> Service:
        kind = self._random.choice([("gthread", "4"), ("gthread", "4"), ("sync", "1")])
        preload = ["--preload"] if self._random.random() < 0.7 else []
        self.notes.append(f"{name}: {kind[0]}{' preloaded' if preload else ''}")
        flags = ["--workers", "2", "--worker-class", kind[0], "--threads", kind[1], *preload]
        address = ["--bind", f"127.0.0.1:{port}", "--timeout", "90", "--no-control-socket"]
        command = [self._tools.python, "-m", "gunicorn", *flags, *address, application]
        return self._added(name, command, "Booting worker")

    def _added(self, name: str, command: list[str], says: str) -> Service:
        service = Service(name, command, self._folder, self._environment, says)
        self._stack.callback(service.close)
        return service

    @property
    def services(self) -> list[Service]:
        """All of them."""
        return [self._broker, self._flask, self._django, self._alone, self._pair]

    def close(self) -> None:
        """End every process."""
        self._stack.close()

    # ---- the story ----

    def run(self) -> Outcome:
        """Tell it from the first request to the last message."""
        shoppers = Shoppers(self._ports[1:], self._requests, 8, REQUEST_S)
        self._stack.callback(shoppers.close)
        events = [self.kill_a_worker, self.kill_a_worker, self.kill_the_broker, self.deploy]
        self._random.shuffle(events)
        for at, event in enumerate(events, 1):
            shoppers.await_answers(at * self._requests // (len(events) + 1), 2 * REQUEST_S)
            event()
        shoppers.await_answers(self._requests, 2 * REQUEST_S)
        self._await_the_end_of_the_work()
        self._stop_all(again=False)
        outcome = audited(self._ledger, self.kills, shoppers.answers)
        outcome.faults += [f"it outlived everything: {each}" for each in self._survivors()]
        outcome.failed = shoppers.failed
        outcome.slowest_stop_s = max(each.slowest_stop_s for each in self.services)
        outcome.notes = self.notes
        return outcome

    def kill_a_worker(self) -> None:
        """SIGKILL a worker of its own, one that is supervised, or the process of a handler, while it works."""
        self._await_work()
        kind = self._random.choice(("alone", "supervised", "handler"))
        pid = 0
        if kind == "alone":
            pids = self._alone.processes()
        else:
            supervised = self._supervised()
            pid = self._random.choice(_with_children(supervised) or supervised)
            pids = _family(pid)
            # One that still starts is no handler yet: its end is that of the worker, as a kill of that one is.
            if kind == "handler" and len(pids) > 1 and self._has_worked(pids[1]):
                pids = pids[1:2]
        self.notes.append(f"killed {kind}")
        ended = self._pair.output.count("worker_ended")
        os.kill(pids[0], signal.SIGSTOP)  # what it starts meanwhile would be missing
        pids = _family(pids[0])
        os.kill(pids[0], signal.SIGKILL)
        self.kills.append(Kill(monotonic_ns(), frozenset(pids)))
        if kind == "alone":
            self._alone.process.wait(STOP_S)
            self._alone.start()
        elif pids[0] == pid:
            # A supervisor that learns of it together with a stop rightly ends with the code for work cut off.
            look_until(
                lambda: self._pair.output.count("worker_ended") > ended,
                self._pair.process,
                "the supervisor knows of the kill",
            )

    def _supervised(self) -> list[int]:
        """Return the workers of the pair; all may have ended by themselves, and be about to be there again."""
        found: list[int] = []

        def look() -> bool:
            found[:] = self._pair.processes()[1:]
            return bool(found)

        look_until(look, self._pair.process, "its workers")
        return found

    def kill_the_broker(self) -> None:
        """SIGKILL it in the middle of work, and start it again."""
        self._await_work()
        self.notes.append("killed the broker")
        self._broker.kill()
        self.kills.append(Kill(monotonic_ns(), None, self._lives))
        self._start_again(self._broker)

    def _start_again(self, service: Service) -> None:
        self._lives += service is self._broker
        service.start()

    def deploy(self) -> None:
        """SIGTERM to all at once; each is started again when it has ended."""
        self.notes.append("deployed")
        self._stop_all(again=True)

    def _stop_all(self, *, again: bool) -> None:
        services = self.services if again else self.services[1:]
        self._random.shuffle(services)
        for service in services:
            service.await_ready()  # before, a signal is how the interpreter ends
        asked = {service: service.ask() for service in services}
        deadline_s = monotonic() + STOP_S
        while asked:
            for service in list(asked):
                if not lasts(service.process, LOOK_EVERY_S):
                    service.await_end(asked.pop(service))
                    if again:
                        self._start_again(service)
                assert monotonic() < deadline_s, f"{service.name} hangs:\n{service.output[-4000:]}"
        if not again:
            self._broker.await_end(self._broker.ask())

    def _survivors(self) -> list[str]:
        """Return what still runs of all that was started, a moment after the last service has ended."""
        mark, found = f"STORY_LEDGER={self._ledger}".encode(), []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if mark not in (path / "environ").read_bytes().split(b"\0"):
                    continue
                descriptor = os.pidfd_open(int(path.name))
            except OSError:
                continue
            if not select.select([descriptor], [], [], STOP_S)[0]:
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            os.close(descriptor)
        return found

    def _has_worked(self, pid: int) -> bool:
        lines = map(str.split, self._ledger.read_text().splitlines())
        return any(line[0] == "begun" and line[6] == str(pid) for line in lines)

    def _await_work(self) -> None:
        """Return when some message is begun and not done: a kill that meets nothing proves nothing."""

        def runs() -> bool:
            text = self._ledger.read_text() if self._ledger.exists() else ""
            return text.count("begun ") > text.count("done ")

        look_until(runs, self._broker.process, "a message is worked on")

    def _await_the_end_of_the_work(self) -> None:
        with minibroker.sync.connect(self.url) as broker:
            for name in QUEUES:
                broker.queue(name).join(timeout=60, delayed=True)
            queues = broker.stats()["queues"]
        dead = {name: queues[name]["dead_lettered"] for name in QUEUES if name in queues}
        assert not any(dead.values()), f"dead-lettered: {dead}"


def _family(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        try:
            text = Path(f"/proc/{each}/task/{each}/children").read_text("ascii")
        except OSError:
            continue
        found += map(int, text.split())
    return found


def _with_children(pids: list[int]) -> list[int]:
    return [pid for pid in pids if len(_family(pid)) > 1]


def told(folder: Path, seed: int, requests: int, tools: Tools) -> Outcome:
    """Tell the story once and return its books; what went wrong is in them, or raised."""
    story = Story(folder, seed, requests, tools)
    try:
        return story.run()
    finally:
        story.close()
