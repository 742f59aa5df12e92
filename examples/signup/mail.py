"""The welcome mail, sent through a real SMTP conversation."""

from __future__ import annotations

from email.message import EmailMessage

import aiosmtplib

from database import User

USER_HEADER = "X-User-Id"  # so that the mail server's record can be matched with the users
SMTP_TIMEOUT = 30.0  # seconds


class MailRefused(Exception):
    """The mail server does not take this mail; the text is its answer, code first."""


async def send_welcome_mail(user: User, smtp_port: int) -> None:
    """Send the mail; returns once the server took responsibility for it.

    Raises:
        MailRefused: the server refused the address or the mail.
        OSError, aiosmtplib.SMTPException: the server could not be reached, or went away.
    """
    try:
        await aiosmtplib.send(
            _welcome(user),
            hostname="127.0.0.1",
            port=smtp_port,
            timeout=SMTP_TIMEOUT,
            start_tls=False,
        )
    except aiosmtplib.SMTPRecipientsRefused as error:
        first = error.recipients[0]
        raise MailRefused(f"{first.code} {first.message}") from error
    except aiosmtplib.SMTPResponseException as error:
        raise MailRefused(f"{error.code} {error.message}") from error


def _welcome(user: User) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "hello@signup.example"
    mail["To"] = user.email
    mail["Subject"] = f"Welcome, {user.name}!"
    mail[USER_HEADER] = str(user.id)
    mail.set_content(f"Dear {user.name},\n\nnice to have you here.\n")
    return mail
