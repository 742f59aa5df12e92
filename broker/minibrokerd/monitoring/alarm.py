"""Between the watch and the webhook: judges what was looked at, and has the changes told."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Final

from minibrokerd.monitoring.caller import Caller
from minibrokerd.monitoring.changes import Changes
from minibrokerd.monitoring.readings import Reading
from minibrokerd.monitoring.watch import Watch
from minibrokerd.monitoring.webhook import Webhook, call_of

MOST_REST_S: Final = 30.0  # between two judgements of the checks


class Alarm:
    """What one broker tells. `caller` has the numbers of it."""

    def __init__(
        self,
        watch: Watch,
        loop: asyncio.AbstractEventLoop,
        unix_ms: Callable[[], int],
        webhook: Webhook | None,
    ) -> None:
        self.caller = Caller()
        self._watch, self._loop, self._unix_ms = watch, loop, unix_ms
        self._due_s = 0.0  # when checks are judged again
        self._webhook: Webhook | None = None
        self._changes = Changes()
        watch.after_look = self._look
        self.set(webhook)

    def set(self, webhook: Webhook | None) -> None:
        """Tell this webhook from now on; one at another address is told of all trouble anew."""
        if webhook is None or self._webhook is None or webhook.url != self._webhook.url:
            self._changes, self._due_s = Changes(), 0.0
        self._webhook = webhook
        self.caller.set(webhook)

    async def _look(self, dead: Mapping[str, int]) -> None:
        if self._webhook is None:
            return  # nothing is judged for nobody
        began_s, readings = self._loop.time(), list[Reading]()
        if began_s >= self._due_s:
            readings = (await self._watch.readings()).readings
            # Of many queues it takes a while, which is the clients': at most a hundredth of the time goes there.
            self._due_s = began_s + min(MOST_REST_S, 100 * (self._loop.time() - began_s))
        webhook = self._webhook
        if webhook is None:
            return
        for notice in self._changes.look(began_s, readings, dead):
            if notice.type in webhook.types:
                self.caller.put(call_of(notice, f"msg_{secrets.token_hex(16)}", self._unix_ms()))

    async def end(self, within_s: float) -> None:
        """Try once more what waits, for so long at the most, and tell nothing any more."""
        ended = asyncio.Event()
        self.caller.end(lambda: self._loop.call_soon_threadsafe(ended.set))
        try:
            await asyncio.wait_for(ended.wait(), max(0.0, within_s))
        except TimeoutError:
            self.caller.give_up()
