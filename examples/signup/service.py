"""One run of the signup service: a clean folder and the processes that work in it."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from database import Analytics, Users
from journal import Journal
from ledger import Job, World, running
from processes import Child, Crew, free_port
from settings import Settings

HERE = Path(__file__).parent
WORKERS = {"mails": 3, "avatars": 1, "analytics": 1}  # processes


class Service:
    """Starts the processes of one run and knows where they leave their traces."""

    def __init__(self, crew: Crew, settings: Settings) -> None:
        shutil.rmtree(settings.folder, ignore_errors=True)
        settings.folder.mkdir(parents=True)
        self._crew = crew
        self._broker_port = free_port()
        self._children: list[Child] = []
        self.settings = replace(
            settings,
            app_port=free_port(),
            smtp_port=free_port(),
            broker_url=f"minibroker://127.0.0.1:{self._broker_port}",
        )
        self.mail_record = Journal(settings.folder / "mail.jsonl")
        self.users = Users(settings.folder)
        self.users.create()
        Analytics(settings.folder).create()

    async def start_smtp(self) -> None:
        """Start the mail server."""
        smtp = self._start_script("smtp", "smtp.py")
        await self._crew.until_listening(smtp, self.settings.smtp_port)

    async def start_app(self) -> None:
        """Start the app under uvicorn."""
        app = self._start_script("app", "app.py")
        await self._crew.until_listening(app, self.settings.app_port)

    async def start_broker(self) -> Child:
        """Start the broker; on the same directory and port each time."""
        data_dir, port = self.settings.folder / "broker", str(self._broker_port)
        broker = self._start(
            "broker", "-m", "minibrokerd", "serve", "--data-dir", str(data_dir), "--port", port
        )
        await self._crew.until_listening(broker, self._broker_port)
        return broker

    async def start_workers(self) -> dict[int, Child]:
        """Start all workers and return those for mails, by process id."""
        workers = [
            (queue, self._start_worker(f"{queue}-worker-{number}", queue))
            for queue, count in WORKERS.items()
            for number in range(1, count + 1)
        ]
        pids = {child.pid for _, child in workers}
        await self._crew.until(lambda: pids <= self._ready(), "all workers are ready")
        return {child.pid: child for queue, child in workers if queue == "mails"}

    def world(self) -> World:
        """Look at what the users of this run have got so far."""
        return World.read(self.settings.folder)

    def running(self) -> dict[Job, float]:
        """Return the jobs that a worker has in hand, with the time of their start."""
        return running(self._journal())

    def stop(self) -> None:
        """Stop every process of this run."""
        self._crew.stop(*self._children)
        self._children.clear()

    def _journal(self) -> list[dict[str, object]]:
        return Journal(self.settings.folder / "journal.jsonl").read()

    def _ready(self) -> set[object]:
        return {entry["pid"] for entry in self._journal() if entry["event"] == "ready"}

    def _start_script(self, name: str, script: str, *arguments: str) -> Child:
        return self._start(name, str(HERE / script), *arguments)

    def _start_worker(self, name: str, queue: str) -> Child:
        return self._start(name, "-m", "minibrokerd", "worker", "workers:app", "--queues", queue)

    def _start(self, name: str, *arguments: str) -> Child:
        label = f"{self.settings.mode}-{name}"
        child = self._crew.start(
            label,
            [sys.executable, *arguments],
            self.settings.to_environment() | {"PYTHONPATH": str(HERE)},
        )
        self._children.append(child)
        return child
