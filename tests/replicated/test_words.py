"""What a broker that leads says of itself, and what is made of what somebody else says."""

from __future__ import annotations

import pytest

from minibrokerd.net import listening
from minibrokerd.replicated.words import Word, decode


def test_a_word_comes_back() -> None:
    word = Word("0" * 16, "here, process 1", "10.0.0.1:7272", is_last=True, end=7, beside="a")
    assert decode(word.encode()) == word


@pytest.mark.parametrize(
    "said", [b"", b"\xff", b"[]", b"1", b'{"run": "a"}', b'{"a": "' + b"b" * 9_000]
)
def test_what_is_not_understood_is_a_word_without_an_address(said: bytes) -> None:
    assert decode(said) == Word()


def test_a_broker_on_every_address_is_found_by_the_name_of_its_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    for host, expected in (("0.0.0.0", "here"), ("127.0.0.1", "127.0.0.1")):
        sockets = listening.bind(host, 0)
        port = sockets[0].getsockname()[1]
        assert listening.reached(sockets) == f"{expected}:{port}"
        for sock in sockets:
            sock.close()


def test_a_word_of_an_older_broker_says_neither_where_the_log_ends_nor_what_is_beside_it() -> None:
    said = b'{"run": "1", "name": "a", "address": "b:1", "is_last": false}'
    assert decode(said) == Word("1", "a", "b:1")
    assert decode(said[:-1] + b', "end": "x"}').end == 0
