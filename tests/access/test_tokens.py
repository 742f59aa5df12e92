"""Tokens: as text and hash, in their file, and in a running server that takes each change within a second."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

import minibroker
import minibroker.sync
from minibroker import NotAllowed, TokenRefused
from minibrokerd.access import token_file
from minibrokerd.access.door import Door
from minibrokerd.access.failures import LONGEST_DELAY_S, MAX_ADDRESSES, MAX_WAITING, Failures
from minibrokerd.access.rights import Grant, Limits, Right
from minibrokerd.access.tokens import BadTokens, Row, decode, encode, hash_of, id_of, make
from minibrokerd.process import exits
from support import warm
from support.broker import COMMAND, BrokerServer, StartBroker
from support.processes import look_until

SMALL = ("--segment-bytes", "1MiB", "--no-http")


def typed(*words: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    """Run `minibroker token`."""
    return warm.run(["token", *words, "--data-dir", str(data_dir)])


def token(data_dir: Path, *words: str) -> str:
    """Return what a command prints."""
    done = typed(*words, data_dir=data_dir)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def row(**fields: Any) -> Row:
    """Return a token's row."""
    made = {"name": "a", "queues": ["*"], "may": [Right.PUBLISH], "created": 0}
    return make(os.urandom, (), **made | fields).row


# -- as values ------------------------------------------------------------------------------------


def test_only_the_hash_is_kept() -> None:
    """256 bits of it are secret, and the row is no help to find them."""
    made = make(os.urandom, (), name="a", queues=["*"], may=[Right.PUBLISH], created=0)
    secret = made.text.split("_", 2)[2]  # which may have that character, too
    assert len(secret) * 6 >= 256
    assert secret not in encode([made.row]).decode()
    assert decode(encode([made.row])) == [made.row]
    assert made.row.hash == hash_of(made.text)
    assert id_of(made.text) == made.row.id


OLD_FILE = b"""{"version": 1, "tokens": [
 {"id": "0badcafe", "name": "api", "queues": ["emails", "tenant-*"], "may": ["publish"], "created": 1700000000,
  "hash": "6ddd470fed3f6e1f3b970f81213f8b9d118f4a20e947b9a1d1e4f0f8e85e33c4", "expires": 4000000000,
  "max_connections": 10, "max_queues": 2, "max_messages": 1000, "max_bytes": 1000000, "max_rate": 50},
 {"id": "00c0ffee", "name": "ops", "queues": ["*"], "may": ["publish", "consume", "manage"], "created": 1700000001,
  "hash": "1bf91d36b52a35f3ebf4b3f887b4a677828ffe1ad7c480a05af71f5323815e62"}]}"""
OLD_TOKENS = (
    "mbt_0badcafe_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
    "mbt_00c0ffee_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8",
)


def test_the_file_of_an_old_release_lets_the_same_in() -> None:
    """Its tokens are in configurations that nobody opens again; what a row does not say has its default."""
    api, ops = decode(OLD_FILE)
    assert [(id_of(text), hash_of(text)) for text in OLD_TOKENS] == [
        (api.id, api.hash),
        (ops.id, ops.hash),
    ]
    assert api.grant() == Grant(
        "api",
        "0badcafe",
        frozenset({Right.PUBLISH}),
        ("emails", "tenant-*"),
        Limits(10, 2, 1_000, 1_000_000, 50),
    )
    assert ops.grant() == Grant("ops", "00c0ffee", frozenset(Right) - {Right.ADMIN}, ("*",))
    assert (api.expires, ops.expires) == (4_000_000_000, 0)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-20],
        lambda data: data.replace(b'"version": 1', b'"version": 2'),
        lambda data: data.replace(b'"*"', b'"mail.dlq"'),
        lambda data: data.replace(b'"*"', b'"[a-z]*"'),
        lambda data: data.replace(b'"publish"', b'"everything"'),
        lambda data: data.replace(b'"hash": "', b'"hash": "0'),
        lambda data: data.replace(b'"name"', b'"owner"'),
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_refused(spoil: Any) -> None:
    """Half of it could be the half with the limits."""
    data = encode([row()])
    assert spoil(data) != data
    with pytest.raises(BadTokens):
        decode(spoil(data))


def test_a_door() -> None:
    """Wrong, expired, revoked and changed tokens; without a file it stands open, with an empty one it is shut."""
    door = Door()
    made = make(os.urandom, (), name="a", queues=["*"], may=[Right.PUBLISH], created=0, expires=100)
    assert door.is_open
    door.set([made.row])
    assert not door.is_open
    grant = door.identify(made.text, 99)
    assert grant is not None
    for wrong in (
        "",
        "x",
        made.text[:-1],
        made.text + "x",
        made.text[:-1] + "é",
        "mbt_" + "0" * 52,
    ):
        assert door.identify(wrong, 99) is None
    assert door.identify(made.text, 100) is None
    assert door.is_live(grant, 99)
    assert not door.is_live(grant, 100)
    assert not door.is_live(None, 99)
    assert door.next_expiry(99) == 100
    door.set([made.row, row()])
    assert door.is_live(grant, 99)
    door.set([])
    assert not door.is_live(grant, 99)
    assert door.identify(made.text, 99) is None


def test_failures_are_counted_by_address_in_a_bounded_table() -> None:
    """Each waits for longer, up to a bound; where many wait, others do not; a network of IPv6 is one."""
    failures = Failures()
    delays = []
    for _ in range(8):
        delays.append(failures.note("10.0.0.1", 0.0))
        failures.done("10.0.0.1")
    assert delays == sorted(delays)
    assert delays[0] < delays[1]
    assert delays[-1] == LONGEST_DELAY_S
    assert failures.note("10.0.0.2", 0.0) == delays[0]
    assert failures.note("10.0.0.1", 1_000.0) == delays[0]
    for last in range(3):
        failures.note(f"2001:db8::{last}", 0.0)
    assert failures.count("2001:db8::ffff") == 3
    for number in range(5_000):
        failures.note(f"192.0.{number // 256}.{number % 256}", 0.0)
    assert len(failures._known) <= MAX_ADDRESSES
    assert sum(failures._waiting.values()) <= MAX_WAITING


# -- the file -------------------------------------------------------------------------------------


def test_the_file_is_private_and_whole(tmp_path: Path) -> None:
    """Made with its directory; a token is printed once, alone on standard output."""
    data_dir = tmp_path / "data"
    done = typed("add", "mail", "--queues", "mail.*,audit", "--may", "publish", data_dir=data_dir)
    text = done.stdout.strip()
    assert id_of(text)
    assert "shown this once" in done.stderr
    assert "first token" in done.stderr
    assert text not in done.stderr
    for name in (token_file.NAME, token_file.LOCK):
        assert stat.S_IMODE((data_dir / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    assert {each.name for each in data_dir.iterdir()} == {token_file.NAME, token_file.LOCK}
    listed = json.loads(token(data_dir, "list", "--json"))
    assert (listed["name"], listed["queues"], listed["may"]) == (
        "mail",
        ["mail.*", "audit"],
        ["publish"],
    )
    assert "hash" not in listed


@pytest.mark.parametrize(
    "words",
    [
        ("add", "a b", "--queues", "*", "--may", "publish"),
        ("add", "a", "--queues", "", "--may", "publish"),
        ("add", "a", "--queues", "mail.dlq", "--may", "publish"),
        ("add", "a", "--queues", "ma?l", "--may", "publish"),
        ("add", "a", "--queues", "*", "--may", "everything"),
        ("add", "a", "--queues", "*", "--may", "publish", "--expires", "0s"),
        ("revoke", "nobody"),
        ("rotate", "nobody"),
    ],
)
def test_what_makes_no_token_changes_nothing(words: tuple[str, ...], tmp_path: Path) -> None:
    """A usage error, and no file: else nobody could log in any more."""
    done = typed(*words, data_dir=tmp_path / "data")
    assert done.returncode == exits.USAGE, done.stderr
    assert not (tmp_path / "data" / token_file.NAME).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_what_root_makes_belongs_to_whoever_has_the_directory(tmp_path: Path) -> None:
    """The lock as well: that user could not change a token any more."""
    os.chown(tmp_path, 4_321, 4_321)
    token(tmp_path, "add", "a", "--queues", "*", "--may", "publish")
    assert {each.name: each.stat().st_uid for each in tmp_path.iterdir()} == {
        token_file.NAME: 4_321,
        token_file.LOCK: 4_321,
    }


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each changes what the other has written."""
    commands = [
        subprocess.Popen(
            [*COMMAND, "token", "add", f"t{number}", "--queues", "*", "--may", "publish",
             "--data-dir", str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for number in range(4)
    ]  # fmt: skip
    for command in commands:
        command.communicate(timeout=60)
    rows = token_file.read(tmp_path)
    assert rows is not None
    assert {row.name for row in rows} == {f"t{number}" for number in range(4)}


def test_a_file_that_others_may_write_stops_the_start(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    """And so does one that cannot be read: nobody gets in by spoiling it."""
    data_dir = tmp_path / "data"
    token(data_dir, "add", "a", "--queues", "*", "--may", "publish")
    file = data_dir / token_file.NAME
    file.chmod(0o660)
    with pytest.raises(AssertionError, match=f"ended with {exits.USAGE}") as caught:
        start_broker(*SMALL, data_dir=data_dir)
    assert "others than its owner may write it" in str(caught.value)
    file.chmod(0o600)
    file.write_text("{}")
    with pytest.raises(AssertionError, match=f"ended with {exits.USAGE}"):
        start_broker(*SMALL, data_dir=data_dir)


# -- a running server -----------------------------------------------------------------------------


async def shut(server: BrokerServer) -> None:
    """Wait until the server has read its first token."""
    await asyncio.to_thread(
        look_until, lambda: "tokens_loaded tokens=1" in server.output, server.process, "the token"
    )


async def test_tokens_come_and_go_while_the_server_runs(
    start_broker: StartBroker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first one shuts the door, also for those inside; a revoked one ends its connections."""
    server = start_broker(*SMALL)
    data_dir = server.data_dir
    async with minibroker.connect(server.url, timeout=5) as anonymous:
        await anonymous.queue("mail.a").publish(b"1")
        text = token(data_dir, "add", "mail", "--queues", "mail.*", "--may", "publish,consume")
        await asyncio.to_thread(
            look_until, lambda: "tokens_loaded tokens=1" in server.output, server.process, "x"
        )
        with pytest.raises(minibroker.MinibrokerError):
            await anonymous.queue("mail.a").publish(b"2", timeout=0.5)
    monkeypatch.setenv("MINIBROKER_TOKEN", text)
    async with minibroker.connect(server.url, timeout=5) as broker:
        queue = broker.queue("mail.a")
        (message,) = await queue.receive(wait=5)
        assert message.raw == b"1"
        await message.ack(confirmed=True)
        with pytest.raises(NotAllowed, match="'other'"):
            await broker.queue("other").publish(b"x")
        with pytest.raises(NotAllowed, match="manage"):
            await queue.purge()
        fresh = token(data_dir, "rotate", "mail")
        token(data_dir, "revoke", id_of(text))
        await asyncio.to_thread(
            look_until, lambda: "was revoked" in server.output, server.process, "the cut"
        )
        assert "token=mail" in next(line for line in server.lines if "was revoked" in line)
        with pytest.raises(minibroker.MinibrokerError):
            await queue.publish(b"2", timeout=0.3)
    with pytest.raises(TokenRefused, match="not known here"):
        await minibroker.connect(server.url)
    with pytest.raises(TokenRefused, match="not known here"):
        await asyncio.to_thread(minibroker.sync.connect, server.url)
    monkeypatch.delenv("MINIBROKER_TOKEN")
    with pytest.raises(TokenRefused, match="asks for a token"):
        await minibroker.connect(server.url)
    async with minibroker.connect(server.url.replace("//", f"//:{fresh}@")) as broker:
        await broker.queue("mail.a").publish(b"3")
    assert text not in server.output
    assert fresh not in server.output
    assert server.stop() == 0


async def test_a_token_in_a_file_is_read_at_each_login(
    start_broker: StartBroker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So one is replaced without a restart of the clients, and their session, with what was begun, goes on."""
    server = start_broker(*SMALL)
    old = token(server.data_dir, "add", "w", "--queues", "*", "--may", "publish,consume")
    file = tmp_path / "token"
    file.write_text(old + "\n")
    monkeypatch.setenv("MINIBROKER_TOKEN_FILE", str(file))
    await shut(server)
    async with minibroker.connect(server.url, connect_timeout=20) as broker:
        queue = broker.queue("q")
        await queue.publish(b"x")
        (message,) = await queue.receive(wait=5)
        file.write_text(token(server.data_dir, "rotate", "w"))
        token(server.data_dir, "revoke", id_of(old))
        await asyncio.to_thread(
            look_until, lambda: "was revoked" in server.output, server.process, "the cut"
        )
        await message.ack(confirmed=True)
        with minibroker.sync.connect(server.url) as blocking:
            assert blocking.stats()["queues"]["q"]["acked"] == 1
    assert server.stop() == 0


def test_the_file_is_gone_and_nobody_gets_in(start_broker: StartBroker) -> None:
    """What was read before stays until a start without the file; an event says so."""
    server = start_broker(*SMALL)
    text = token(server.data_dir, "add", "w", "--queues", "*", "--may", "publish")
    look_until(lambda: "tokens_loaded" in server.output, server.process, "loaded")
    (server.data_dir / token_file.NAME).unlink()
    look_until(lambda: "tokens_refused" in server.output, server.process, "refused")
    with pytest.raises(TokenRefused):
        minibroker.sync.connect(server.url)
    minibroker.sync.connect(server.url, token=text).close()


def test_listening_for_other_machines_needs_a_token(tmp_path: Path) -> None:
    """Or the word that the network is private; without TLS the log says what that means."""
    data_dir = tmp_path / "data"
    with pytest.raises(AssertionError, match="minibroker token add"):
        BrokerServer(data_dir, *SMALL, "--host", "0.0.0.0")
    text = token(data_dir, "add", "w", "--queues", "*", "--may", "publish")
    server = BrokerServer(data_dir, *SMALL, "--host", "0.0.0.0")
    try:
        url = f"minibroker://127.0.0.1:{server.port}"
        minibroker.sync.connect(url, token=text).close()
        with pytest.raises(TokenRefused):
            minibroker.sync.connect(url)
        assert " unencrypted " in server.output
    finally:
        server.close()
