"""The run through the broker: two kills, a dead letter, its repair, and nothing lost."""

from __future__ import annotations

import asyncio
import time

import minibroker

import deadletters
from ledger import Job, World, mails_delivered
from processes import Child, Crew, DemoError
from scenes import Scene, Script
from service import WORKERS
from settings import Settings
from visitors import Answer

CORRECTED_ADDRESS = "ada@mail.example"


class ThroughBroker(Scene):
    """Every user is answered once the work is safe; meanwhile a worker and the broker die."""

    def __init__(self, crew: Crew, script: Script, settings: Settings) -> None:
        super().__init__(crew, script, settings)
        self.worker_kills = 0
        self.broker_kills = 0
        self.dead_letters = 0
        self.redriven = 0
        self.in_hand_at_kills = 0  # there may be this many duplicates, and no more
        self._dead_pids: set[int] = set()

    async def play(self) -> None:
        """Start everything, sign everybody up, kill, repair, and wait until all work is done."""
        await self.service.start_smtp()
        broker_process = await self.service.start_broker()
        async with minibroker.connect(self.service.settings.broker_url) as broker:
            mail_workers = await self.service.start_workers()
            await self.service.start_app()
            async with asyncio.TaskGroup() as group:
                group.create_task(self.sign_people_up(self.script.queued_pace_seconds))
                await self._kill_worker(mail_workers)
                await self._kill_broker(broker_process)
            self.tell_answers()
            await self._repair_dead_letter(broker)
            await self._wait_for_quiet(broker)
        self.service.stop()

    def note(self, answer: Answer) -> None:
        """Keep an answer; through the broker each must be a success, whatever dies meanwhile."""
        super().note(answer)
        if answer.status != 201:
            logs = "see the log of the app"
            raise DemoError(f"{answer.name} was answered {answer.status}: {answer.detail}; {logs}")

    def check(self) -> World:
        """Hold the promises against the world and return it.

        Raises:
            DemoError: something is lost, or came twice and no kill explains it.
        """
        world, answered = self.service.world(), self.answered()
        if lost := world.lost(answered):
            raise DemoError(f"lost={len(lost)}: {', '.join(lost)}")
        if world.duplicates() > self.in_hand_at_kills:
            raise DemoError(
                f"duplicates={world.duplicates()}, but only {self.in_hand_at_kills} messages were "
                "in hand at the kills"
            )
        return world

    async def _kill_worker(self, mail_workers: dict[int, Child]) -> None:
        """SIGKILL a mail worker while the mail server is at work for it."""
        await self._until_answered(0.3)
        pid = await self.crew.until(self._busy_mail_worker, "a worker is in the middle of a mail")
        mail_workers[pid].sigkill()
        jobs = [job for job in self._in_hand() if job.pid == pid]  # their end was never written
        self._dead_pids.add(pid)
        self._note(jobs, "worker")
        self.worker_kills += 1
        lease = self.service.settings.lease_ms / 1_000
        self.say(f"   kill -9 of a mail worker in the middle of {_count(jobs, 'mail')} (exit -9).")
        self.say("   Nobody restarts it; the other workers take over when the lease")
        self.say(f"   of {lease:g} s has ended.")

    async def _kill_broker(self, broker_process: Child) -> None:
        """SIGKILL the broker while signups come in and workers work; start it again."""
        await self._until_answered(0.6)
        await self.crew.until(self._in_hand, "the workers have work")
        broker_process.sigkill()
        killed = time.monotonic()
        jobs = self._in_hand()
        await self.service.start_broker()
        away_ms = (time.monotonic() - killed) * 1_000
        self._note(jobs, "broker")
        self.broker_kills += 1
        self.say(f"   kill -9 of the broker with {_count(jobs, 'message')} in hand (exit -9);")
        self.say(f"   on the same directory and port it is back after {away_ms:.0f} ms.")

    async def _repair_dead_letter(self, broker: minibroker.Broker) -> None:
        """Show the refused mail in the dead-letter queue, correct the address, send it again."""
        dlq = broker.queue("mails.dlq")
        dead = await self.crew.until_told(
            lambda: deadletters.peek(dlq), "the refused mail is in mails.dlq"
        )
        self.dead_letters = len(dead)
        self.say("\n4  The dead-letter queue mails.dlq")
        for letter in dead:
            user = self.service.users.find(letter.body["user_id"])
            self.say(f"   message {letter.id}: the welcome mail of {user.name}, {user.email}")
            self.say(deadletters.history_table(letter.info["history"], indent="   "))
            self.service.users.correct_email(user.id, CORRECTED_ADDRESS)
        self.redriven = await dlq.redrive()
        self.say(
            f"   Her address is now {CORRECTED_ADDRESS} in users.db; redriven: {self.redriven}."
        )
        for letter in dead:
            await self._until_mailed(letter.body["user_id"])
        self.say("   The mail is delivered.")

    async def _wait_for_quiet(self, broker: minibroker.Broker) -> None:
        """Wait until no queue holds a message and no worker a job: nothing can come any more."""

        async def quiet() -> bool:
            if self._in_hand():
                return False
            return not any([await broker.queue(name).peek(count=1) for name in WORKERS])

        await self.crew.until_told(quiet, "all queues are empty and all workers idle")

    async def _until_answered(self, share: float) -> None:
        count = max(1, round(share * self.script.signups))
        await self.crew.until(lambda: len(self.answers) >= count, f"{count} signups are answered")

    async def _until_mailed(self, user_id: int) -> None:
        record = self.service.mail_record
        await self.crew.until(
            lambda: mails_delivered(record.read())[user_id],
            f"the mail of user {user_id} is delivered",
        )

    def _busy_mail_worker(self) -> int | None:
        """Return the pid of a worker whose mail is neither just begun nor nearly done."""
        now, whole = time.time(), self.service.settings.mail_seconds
        for job, started in self.service.running().items():
            if job.queue == "mails" and 0.25 * whole < now - started < 0.6 * whole:
                return job.pid
        return None

    def _in_hand(self) -> list[Job]:
        return [job for job in self.service.running() if job.pid not in self._dead_pids]

    def _note(self, jobs: list[Job], who: str) -> None:
        if not jobs:
            raise DemoError(
                f"the {who} was killed, but nothing was running: the kill shows nothing"
            )
        self.in_hand_at_kills += len(jobs)


def _count(jobs: list[Job], noun: str) -> str:
    return f"{len(jobs)} {noun}" + ("" if len(jobs) == 1 else "s")
