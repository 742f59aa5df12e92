"""What both runs of the signups share, and the first one: all work in the request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ledger import median
from processes import Crew, DemoError
from service import Service
from settings import Settings
from visitors import Answer, forms, visit


@dataclass(frozen=True, slots=True)
class Script:
    """The measures of the story."""

    signups: int
    photo: Path
    request_pace_seconds: float  # between two signups; the app has an avatar to make meanwhile
    queued_pace_seconds: float  # faster than the workers can follow, so that they are busy
    say: Callable[[str], None]


class Scene:
    """What both runs share: people sign up with a service, and it is noted what they were told."""

    def __init__(self, crew: Crew, script: Script, settings: Settings) -> None:
        self.crew = crew
        self.script = script
        self.say = script.say
        self.service = Service(crew, settings)
        self.answers: list[Answer] = []

    async def sign_people_up(self, pace_seconds: float) -> None:
        """Send all signups and keep the answers; returns when the last one is answered.

        Raises:
            DemoError, in an ExceptionGroup: somebody got no answer at all.
        """
        settings = self.service.settings
        people = forms(self.script.signups, self.script.photo, settings.refused_address)
        await visit(settings.app_port, people, pace_seconds, self.note)

    def note(self, answer: Answer) -> None:
        """Keep an answer as it comes."""
        self.answers.append(answer)

    def median_ms(self) -> int:
        """Return the p50 over all answers, in milliseconds."""
        return round(median([answer.milliseconds for answer in self.answers]))

    def slowest(self) -> Answer:
        """Return the answer that took longest."""
        return max(self.answers, key=lambda answer: answer.milliseconds)

    def answered(self) -> list[int]:
        """Return the users whose signup was answered with success."""
        return [answer.user_id for answer in self.answers if answer.status == 201]

    def tell_answers(self) -> None:
        """Say how the users fared."""
        slowest = self.slowest()
        self.say(f"   {len(self.answered())} of {len(self.answers)} users are welcome.")
        self.say(f"   They waited {self.median_ms()} ms (p50); the longest was {slowest.name},")
        self.say(f"   {slowest.milliseconds:.0f} ms.")
        for answer in self.answers:
            if answer.status != 201:
                self.say(f"   {answer.name} saw an error page ({answer.status}):")
                self.say(f"   {answer.detail['detail']}")


class InRequest(Scene):
    """Every user waits for the picture, the mail server and the analytics."""

    async def play(self) -> None:
        """Sign everybody up and tell how it was."""
        await self.service.start_smtp()
        await self.service.start_app()
        await self.sign_people_up(self.script.request_pace_seconds)
        self.service.stop()
        self.tell_answers()
        # Exactly the one with the mistyped address may be missing.
        if len(self.answered()) != len(self.answers) - 1:
            raise DemoError(
                "in the request: more signups failed than the one with the refused address"
            )
