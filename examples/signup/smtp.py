"""A real SMTP server that is slow and refuses one address for good. Run: python smtp.py

Its record (mail.jsonl) is the truth about mails: what stands there as delivered is in somebody's
inbox, whatever the sender believes.
"""

from __future__ import annotations

import asyncio
import email
import signal

from aiosmtpd.smtp import SMTP, Envelope, Session

from journal import Journal
from mail import USER_HEADER
from settings import Settings


class SlowInbox:
    """Takes `mail_seconds` for each mail, answers 550 to the refused address, records the rest."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._record = Journal(settings.folder / "mail.jsonl")
        self._deliveries: set[asyncio.Task[None]] = (
            set()
        )  # the loop holds tasks by weak reference only

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """A recipient is named."""
        return await self.accept(envelope, address)

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """A whole mail has come in."""
        return await self.deliver(envelope)

    async def accept(self, envelope: Envelope, address: str) -> str:
        """Refuse the one address at once and for good; accept every other."""
        if address == self._settings.refused_address:
            self._record.write(event="refused", address=address)
            return f"550 5.1.1 <{address}>: no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def deliver(self, envelope: Envelope) -> str:
        """Deliver, then say so. The sender may be gone by then, the mail is delivered all the same:
        RFC 1047 names this gap, and it is why a mail can arrive twice."""
        delivery = asyncio.create_task(self._put_into_inbox(envelope))
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._deliveries.discard)
        await asyncio.shield(delivery)
        return "250 2.0.0 delivered"

    async def idle(self) -> None:
        """Wait until no delivery is under way."""
        await asyncio.gather(*self._deliveries)

    async def _put_into_inbox(self, envelope: Envelope) -> None:
        assert isinstance(envelope.content, bytes)
        user_id = int(email.message_from_bytes(envelope.content)[USER_HEADER])
        await asyncio.sleep(self._settings.mail_seconds)
        self._record.write(event="delivered", user_id=user_id, to=envelope.rcpt_tos[0])


async def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = Settings.from_environment()
    inbox = SlowInbox(settings)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await loop.create_server(lambda: SMTP(inbox), "127.0.0.1", settings.smtp_port)
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
