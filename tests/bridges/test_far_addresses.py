"""Urls of other brokers: what they may say, and that no password leaves them."""

from __future__ import annotations

from pathlib import Path

import pytest

from minibrokerd.bridges.addresses import PEERS, Peer, needed, read
from support.certificates import Authority


def test_a_url_is_read_whole() -> None:
    address = read("amqp://bob:p%40ss@rabbit:5673/jobs?queue=orders", is_source=True)
    assert (address.hosts, address.path, address.user) == ((("rabbit", 5673),), "jobs", "bob")
    assert str(address.password) == "p@ss"
    assert needed(address, "queue") == "orders"


def test_kafka_has_many_hosts_each_with_its_port_or_that_of_kafka() -> None:
    address = read("kafka://one,two:9093,[::1]:9094?topic=t", is_source=True)
    assert address.place == "one:9092,two:9093,[::1]:9094"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("amqp://bob:secret@host?quue=x", "the option 'quue' is not known"),
        ("amqp://bob:secret@host:0x?queue=x", "no host with a port"),
        ("amqp://bob:secret@host:70000?queue=x", "no host with a port"),
        ("amqp://bob:secret@host?queue=x&ca=/none", "the option 'ca' is not known"),
        ("amqps://bob:secret@host?queue=x&ca=/none", "a file for TLS cannot be used"),
        ("amqp://bob:secret/x@host?queue=x", "with an @ behind its host"),
        ("amqp://bob:12/secret@host?queue=x", "with an @ behind its host"),
        ("amqp://bob:12?secret@host?queue=x", "with an @ behind its host"),
        ("amqp://bob:12#secret@host?queue=x", "is no url of another broker"),
        ("nats://secret@host?quue=x", "the option 'quue' is not known"),
        ("nats://secret/x@host?stream=x", "with an @ behind its host"),
        ("mqtt://bob:secret@host/x", "is no url of another broker"),
        ("amqp:/bob:secret@host", "is no url of another broker"),
    ],
)
def test_what_is_wrong_is_said_without_the_password(url: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"url|option|host|TLS") as caught:
        read(url, is_source=True)
    assert text in str(caught.value)
    assert "secret" not in str(caught.value)


def test_no_text_of_a_library_shows_a_password() -> None:
    """Nor does a print of the address."""
    address = read("nats://bob:p%40ss@host?subject=x", is_source=False)
    assert address.clean("cannot log in as bob:p@ss, p%40ss") == "cannot log in as bob:***, ***"
    assert "p@ss" not in repr(address)


@pytest.mark.parametrize(
    "url", ["nats://t%2Fk3n@host", "nats://:t%2Fk3n@host", "nats://t%2Fk3n:@host"]
)
def test_a_token_of_nats_is_a_secret(url: str) -> None:
    """It stands where a user would, or where a password would."""
    address = read(f"{url}?subject=x", is_source=False)
    assert (address.user, str(address.password)) == ("", "t/k3n")
    assert "k3n" not in repr(address) + str(address)
    assert address.clean("no t/k3n, t%2Fk3n, t%2fk3n") == "no ***, ***, ***"


def test_a_user_of_others_without_a_password_is_one() -> None:
    assert read("amqp://bob@host?queue=x", is_source=True).user == "bob"


def test_a_name_that_is_needed_and_not_there_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"add \?queue=NAME"):
        needed(read("amqp://host", is_source=True), "queue")


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.scheme)
def test_with_an_s_it_is_tls_and_the_host_is_verified(peer: Peer, tmp_path: Path) -> None:
    ca = Authority(tmp_path).cert
    address = read(f"{peer.sealed}://host?ca={ca}", is_source=True)
    assert address.ssl is not None
    assert address.ssl.check_hostname
