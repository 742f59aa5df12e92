"""The parts of the signup example that need no broker."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from aiosmtpd.smtp import Envelope
from database import Users
from deadletters import history_table
from journal import Journal
from ledger import mails_delivered
from mail import USER_HEADER
from processes import Crew, DemoError, free_port
from settings import Settings
from smtp import SlowInbox
from visitors import forms


def test_settings_survive_the_environment(tmp_path: Path) -> None:
    """A child process sees exactly what the demo meant."""
    settings = Settings(tmp_path, mode="request", smtp_port=99, mail_seconds=0.25, lease_ms=700)
    assert Settings.from_environment(settings.to_environment()) == settings


def test_a_corrected_address_is_what_the_next_attempt_finds(tmp_path: Path) -> None:
    """The message carries the user's id, so a correction in the database reaches it."""
    users = Users(tmp_path)
    users.create()
    user = users.save("Ada", "ada@typo.example")
    users.correct_email(user.id, "ada@mail.example")
    assert users.find(user.id).email == "ada@mail.example"
    with pytest.raises(LookupError, match="no user 77"):
        users.find(77)


def test_exactly_one_visitor_has_the_refused_address(tmp_path: Path) -> None:
    """The story has one dead letter; names and addresses are all different."""
    people = forms(40, tmp_path, "ada@typo.example")
    assert [person["name"] for person in people if "typo" in person["email"]] == ["Ada"]
    assert len({person["email"] for person in people}) == 40


async def test_the_mail_server_refuses_one_address_for_good(tmp_path: Path) -> None:
    """550 to the refused one, 250 to others."""
    inbox, envelope = SlowInbox(Settings(tmp_path)), Envelope()
    refused = Settings(tmp_path).refused_address
    replies = [await inbox.accept(envelope, address) for address in (refused, "a@mail.example")]
    assert [reply[:3] for reply in replies] == ["550", "250"]
    assert envelope.rcpt_tos == ["a@mail.example"]


async def test_a_mail_is_delivered_although_its_sender_died(tmp_path: Path) -> None:
    """RFC 1047: the connection ends while the server works; the mail arrives all the same."""
    inbox = SlowInbox(Settings(tmp_path, mail_seconds=0.05))
    envelope = Envelope()
    envelope.content = f"{USER_HEADER}: 5\r\n\r\nhello".encode()
    envelope.rcpt_tos = ["a@mail.example"]
    conversation = asyncio.create_task(inbox.deliver(envelope))
    await asyncio.sleep(0)  # one turn: the delivery is under way
    conversation.cancel()
    await inbox.idle()
    assert mails_delivered(Journal(tmp_path / "mail.jsonl").read()) == {5: 1}


async def test_a_child_that_ends_early_fails_the_wait_with_its_log(tmp_path: Path) -> None:
    """Nobody waits 30 s for a process that is gone."""
    with Crew(tmp_path) as crew:
        child = crew.start("short", [sys.executable, "-c", "raise SystemExit(3)"], {})
        with pytest.raises(DemoError, match=r"short ended with 3; see .*short\.log"):
            await crew.until_listening(child, free_port())


async def test_a_wait_names_what_it_waited_for(tmp_path: Path) -> None:
    """The text of a failed stage says which condition did not come true."""
    with Crew(tmp_path) as crew, pytest.raises(DemoError, match="in vain: pigs fly"):
        await crew.until(lambda: False, "pigs fly", seconds=0)


async def test_leaving_the_crew_stops_its_processes(tmp_path: Path) -> None:
    """No process outlives the demo; a SIGKILL is told from every other end."""
    wait = [sys.executable, "-c", "import signal; signal.pause()"]
    with Crew(tmp_path) as crew:
        first, second = crew.start("first", wait, {}), crew.start("second", wait, {})
        first.sigkill()
        first.check()  # a wanted kill is no failure
    assert not second.alive()


def test_a_history_is_a_table_with_one_line_an_attempt() -> None:
    """When, how long, why, by whom, and the error, cut where it would not fit."""
    attempt = {
        "started_unix_ms": 1_000,
        "ended_unix_ms": 1_015,
        "cause": "failed",
        "client": "worker-1",
        "error_class": "Refused",
        "error_text": "550 " + "x" * 80,
    }
    lost = attempt | {"cause": "worker_lost", "error_class": "", "error_text": ""}
    head, rule, first, second = history_table([attempt, lost], indent="  ").splitlines()
    assert head.split() == ["attempt", "started", "(UTC)", "took", "cause", "worker", "error"]
    assert set(rule) == {"-", " "}
    assert (
        first
        == "  1        00:00:01.000   15 ms  failed       worker-1  Refused: 550 "
        + "x" * 44
        + "..."
    )
    assert second.split() == ["2", "00:00:01.000", "15", "ms", "worker_lost", "worker-1"]
