"""A broker whose log is in a stream answers operators: who it is, and that it steps down.

It has a connection of its own, which is there from the start of the process on, whether the broker leads or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from minibrokerd.replicated.failures import NoClient
from minibrokerd.replicated.members import LEADS, STEP_DOWN, WHO, Consent, Member
from minibrokerd.replicated.nats_stream import NatsStream
from minibrokerd.replicated.stream import StreamAway
from minibrokerd.replicated.stream_address import StreamAddress

AGAIN_S: Final = 1.0  # until it is seen to that a server of NATS is there


class Answering:
    """Answers from `run` on; `step_down` makes the broker hand over, and returns why it does not, or ""."""

    def __init__(
        self,
        address: StreamAddress,
        member: Callable[[], Member],
        step_down: Callable[[], str],
    ) -> None:
        self._stream = NatsStream(address)
        self._member = member
        self._step_down = step_down

    async def run(self) -> None:
        """Answer until cancelled."""
        try:
            is_heard = False
            while True:
                with suppress(StreamAway):  # whoever starts, or stands by, says what is wrong
                    if is_heard:
                        await self._stream.connect()  # given up where a login was refused
                    else:
                        await self._stream.answer(self.answer_to)
                    is_heard = True
                await asyncio.sleep(AGAIN_S)
        except NoClient:
            return  # as below
        finally:
            await self._stream.close()

    def answer_to(self, question: bytes) -> bytes | None:
        """Return what is answered; None: nothing."""
        if question == WHO:
            return self._member().encode()
        if question == STEP_DOWN and (member := self._member()).state == LEADS:
            return Consent(member.name, self._step_down()).encode()
        return None  # it is for another one, or of a newer version
