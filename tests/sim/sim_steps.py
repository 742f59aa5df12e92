"""How an application of a world ends a message by a step: its ack and what follows, together or not at all.

What follows may wait for what stands before it in the step, and for others that were published earlier.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from checker import OK, Id, Intent
from sim_answer import Answer
from sim_capabilities import Wish
from sim_publisher import UNKNOWN

from minibroker.contract.confirms import ConfirmRun, MessageId
from minibroker.contract.ends import IF_DEAD
from minibroker.contract.errors import LeaseLost
from minibroker.session.after import AfterGroup
from minibroker.session.outbox import PublishGroup
from minibroker.session.result_wish import completion
from minibroker.session.step_frame import StepFrame

if TYPE_CHECKING:
    from sim_client import SimulatedClient, Work

KNOWN = 5  # of the newest messages of a queue, some are waited for


@dataclass(slots=True, eq=False)
class Follower:
    """A message of a step that waits for others; `named` are those that stood in a queue before."""

    intent: Intent
    named: list[Id]
    before: list[Intent]  # of its own step


@dataclass(slots=True, eq=False)
class Step:
    """One step as its client sent it."""

    work: Work
    sent_us: int
    intents: list[Intent] = field(default_factory=list)
    followers: list[Follower] = field(default_factory=list)

    @property
    def is_there(self) -> bool:
        """Whether it was done, for certain."""
        return any(each.outcome == OK or each.history is not None for each in self.intents)


class Stepper:
    """The steps of one process."""

    def __init__(self, client: SimulatedClient) -> None:
        self._client = client
        self._random = Random(f"steps of {client.world.seed} {client.name}")  # of its own
        self._count = 0

    def wants(self) -> bool:
        """Draw whether the next message ends by a step."""
        names = self._client.world.uses.names
        return bool(names & {"step", "chain"}) and self._random.random() < 0.4

    def result_of(self, work: Work) -> Any:
        """Return what is said of a message that is done, with a result or without one."""
        message = work.message
        if "result" not in self._client.world.uses.names or self._random.random() < 0.3:
            return None
        return completion(message, result_of((message.origin, message.sequence)), 600.0)

    def end(self, work: Work) -> None:
        """Ack a message and publish what follows, in one frame."""
        client = self._client
        world, random = client.world, self._random
        step = Step(work, world.loop.now_us)
        groups = [self._group(step) for _ in range(random.randint(1, 3))]
        if "chain" in world.uses.names:
            groups += [self._follower(step) for _ in range(random.randint(0, 2))]
        frame = StepFrame({work.message: self.result_of(work)}, groups)

        def told(value: Any, error: Exception | None) -> None:
            self._told(step, value, error)

        within_ms = client.timeout_ms
        answer = Answer(client, "step", client.now_ms() + within_ms, told)
        world.laws.steps.append(step)
        world.checker.ending(work.history, work.handed, "step", world.loop.now_us)
        client.machine.steps.ask(answer, frame, within_ms, client.now_ms())
        if random.random() < client.habits.goes:
            client.soon(20_000, self._go, answer, frame)

    def _go(self, answer: Answer, frame: StepFrame) -> None:
        """Its caller goes without the answer."""
        if answer.cancel():
            self._client.machine.steps.gave_up(frame)

    def _group(self, step: Step) -> PublishGroup:
        queue, wish, body = self._drawn()
        group = PublishGroup(self._where(queue, wish), 0)
        delay_ms = self._random.choice((0, 0, 100))
        group.add(None, b"", body, 0, wish.key, delay_ms)
        step.intents.append(self._client.publisher.intend(queue, body, wish, delay_ms))
        return group

    def _follower(self, step: Step) -> PublishGroup:
        """Return a message that waits for all that stands before it in its step, and for some of others."""
        queue, wish, body = self._drawn()
        by_id = self._client.world.checker.by_id
        named = [id for id in list(by_id)[-KNOWN:] if self._random.random() < 0.3]
        group = AfterGroup(
            self._where(queue, wish), [MessageId(*id) for id in named], of_step=True,
            if_dead=self._random.choice(IF_DEAD),
        )  # fmt: skip
        group.add(None, b"", body, 0, wish.key, 0)
        intent = self._client.publisher.intend(queue, body, wish, 0)
        intent.retimed, intent.plain = True, False  # it takes its place in line when it goes on
        step.followers.append(Follower(intent, named, list(step.intents)))
        step.intents.append(intent)
        return group

    def _drawn(self) -> tuple[str, Wish, bytes]:
        client = self._client
        self._count += 1
        queue = self._random.choice(client.world.queues)
        body = f"{client.name}-step-{self._count}:".encode()
        return queue, client.publisher.wish(queue, named=False), body

    def _where(self, queue: str, wish: Wish) -> Any:
        return (queue, self._client.timeout_ms, *wish.terms)

    def _told(self, step: Step, runs: list[ConfirmRun], error: Exception | None) -> None:
        client, work = self._client, step.work
        checker, now_us = client.world.checker, client.world.loop.now_us
        if error is None:
            for intent, run in zip(step.intents, runs, strict=True):
                checker.stored(intent, (run.origin, run.first), now_us)
            work.handed.ended = "ack"
            checker.settled(work.history, work.handed, False, None, now_us)
            client.spent.append(work)
            return
        client.publisher.refused(step.intents, error)
        if isinstance(error, LeaseLost):
            checker.settled(work.history, work.handed, True, None, now_us)
        elif getattr(error, "code", "") not in UNKNOWN:
            work.handed.ended = ""  # the message is the application's again
            client.loop.call_soon(client.finish, work)


def result_of(id: Id) -> str:
    """Return what every worker says that a message came to."""
    return f"{id[0]}-{id[1]}"
