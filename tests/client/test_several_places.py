"""Clients with several addresses, without a socket: whom they dial, when, and what they remember."""

from __future__ import annotations

import pytest

from minibroker.contract import limits
from minibroker.contract.errors import LoginRefused, NotLeading, TokenRefused
from minibroker.session.address import Place, Server, address_of, parse_url, where
from minibroker.session.connecting import Connecting
from minibroker.session.deadlines import SLOT_MS
from minibroker.session.events import Again, Away, Dial, Effect, Opened
from minibroker.session.heartbeat import SEVERAL_MS, Heartbeat
from minibroker.session.rounds import PATIENCE_MS
from minibroker.session.session import Session
from minibroker.session.timers import Timers

A, B, C = ("a", 7272), ("b", 7273), ("c", 7272)
REFUSED = ConnectionRefusedError("nobody listens")
CONNECT_MS = 10_000
HOUR_MS = 3_600_000


class Dialler:
    """A client that is only connecting: what it dials and for how long it waits, in a time of its own."""

    def __init__(self, *places: Place) -> None:
        self.now_ms = 1_000
        self.timers = Timers()
        self.effects: list[Effect] = []
        self.connecting = Connecting(
            self.timers, lambda low, high: 1.0, CONNECT_MS, self.effects.append, self.goes_on
        )  # fmt: skip
        self.connecting.among(places)
        self.connecting.start(self.now_ms)

    def goes_on(self, error: Exception, now_ms: int) -> bool:
        return True

    def dials(self) -> Place | None:
        """Return where it dials, waiting until it does."""
        while not any(isinstance(effect, Dial) for effect in self.effects):
            assert self.timers.wake_ms < self.now_ms + HOUR_MS
            self.now_ms = max(self.now_ms, self.timers.wake_ms)
            for item in self.timers.pop_due(self.now_ms):
                item(self.now_ms)
        dial = next(effect for effect in self.effects if isinstance(effect, Dial))
        self.effects.clear()
        return dial.place

    def fails(self, error: Exception = REFUSED) -> int:
        """Let the attempt, or the connection, end; return for how long it waits before the next one, in ms."""
        self.connecting.ended(error, self.now_ms)
        return next(effect.delay_ms for effect in self.effects if isinstance(effect, Again))

    def opens(self) -> Opened:
        """Let the login succeed."""
        assert self.connecting.dialled()
        self.connecting.welcomed(self.now_ms)
        opened = next(effect for effect in self.effects if isinstance(effect, Opened))
        self.effects.clear()
        return opened


def standing_by(active: str = "") -> NotLeading:
    """Return what a server says that stands by, and knows of `active`."""
    error = NotLeading("another one leads")
    error.leader = active
    return error


def test_a_round_has_no_pause_and_rounds_have_more_and_more() -> None:
    client = Dialler(A, B, C)
    seen = []
    for _ in range(9):
        seen.append((client.dials(), client.fails()))
    assert seen == [
        (A, 0), (B, 0), (C, 50),
        (A, 0), (B, 0), (C, 100),
        (A, 0), (B, 0), (C, 200),
    ]  # fmt: skip


def test_one_address_is_tried_as_ever() -> None:
    client = Dialler(A)
    assert [(client.dials(), client.fails()) for _ in range(3)] == [(A, 50), (A, 100), (A, 200)]
    client = Dialler()
    assert [(client.dials(), client.fails()) for _ in range(2)] == [(None, 50), (None, 100)]


def test_who_is_named_is_dialled_next_and_at_once() -> None:
    client = Dialler(A, B, C)
    assert client.dials() == A
    assert client.fails(standing_by("c:7272")) == 0
    assert client.dials() == C
    assert client.opens().place == C


def test_who_is_named_need_not_be_in_the_url() -> None:
    client = Dialler(A)
    assert client.dials() == A
    assert client.fails(standing_by("[::9]:7300")) == 0
    assert client.dials() == ("::9", 7300)
    assert client.fails() == 50
    assert client.dials() == ("::9", 7300), "the one that is said to lead begins the next round"
    assert client.fails() == 0
    assert client.dials() == A


@pytest.mark.parametrize("active", ["", "nowhere:http", "b:0", "a,b", "x@b:7273", "b:7273/x"])
def test_who_names_nobody_is_followed_by_the_next_one(active: str) -> None:
    client = Dialler(A, C)
    assert client.dials() == A
    assert client.fails(standing_by(active)) == 0
    assert client.dials() == C


def test_two_that_name_each_other_are_not_asked_in_a_circle() -> None:
    client = Dialler(A, B)
    assert client.dials() == A
    assert client.fails(standing_by("b:7273")) == 0
    assert client.dials() == B
    assert client.fails(standing_by("a:7272")) == 50


def test_who_leads_is_remembered_for_the_next_time() -> None:
    client = Dialler(A, B, C)
    client.dials()
    client.fails(standing_by())
    assert client.dials() == B
    client.opens()
    assert client.fails(ConnectionResetError("it was killed")) == 50
    assert [type(effect) for effect in client.effects] == [Away, Again]
    assert [client.dials(), client.fails()] == [B, 0]
    assert [client.dials(), client.fails(standing_by())] == [C, 0]
    assert client.dials() == A
    assert client.opens().place == A
    client.fails()
    assert client.dials() == A


def test_pauses_begin_anew_behind_a_connection() -> None:
    client = Dialler(A, B)
    for _ in range(6):
        client.dials()
        client.fails()
    client.dials()
    client.opens()
    assert client.fails() == 50


def test_a_machine_that_says_nothing_is_not_waited_for_while_there_are_others() -> None:
    client = Dialler(A, B)
    assert client.dials() == A
    began_ms = client.now_ms
    assert client.dials() == B
    assert client.now_ms - began_ms < 2 * PATIENCE_MS
    for _ in range(200):
        began_ms = client.now_ms
        client.dials()
    assert CONNECT_MS <= client.now_ms - began_ms < CONNECT_MS + 1_000, "one that is slow is heard"
    alone = Dialler(A)
    assert alone.dials() == A
    began_ms = alone.now_ms
    alone.dials()
    assert alone.now_ms - began_ms >= CONNECT_MS


def test_a_session_that_is_not_known_is_begun_anew_where_that_was_said() -> None:
    client = Dialler(A, B)
    client.dials()
    assert client.fails(LoginRefused("the session is not known here")) == 50
    assert client.dials() == A
    assert client.fails(TokenRefused("another token")) == 0
    assert client.dials() == B


def test_urls() -> None:
    server = parse_url("minibroker://:secret@a,b:7273,[::1]:7274,a:7272")
    assert server.places == (A, B, ("::1", 7274))
    assert server.token == "secret"
    assert where(server) == "a:7272,b:7273,::1:7274"
    sealed = address_of("minibrokers://a:7272,b:7273?ca=/ca.pem")
    assert isinstance(sealed, Server)
    assert sealed.places == (A, B)
    assert sealed.encryption is not None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("minibroker://a,", "a comma too much"),
        ("minibroker://a,,b", "a comma too much"),
        ("minibroker://,a", "is not of the form"),
        ("minibroker://a,b:0", "'b:0' is no host:port"),
        ("minibroker://a,b:65536", "[Pp]ort"),
        ("minibroker://a,b:http", "[Pp]ort"),
        ("minibroker://a,b/name", "'/name' names nothing"),
        ("minibroker://a,minibroker://b", "names nothing"),
        ("minibroker://a, b", "is not of the form"),
    ],
)
def test_urls_that_are_none(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_url(url)


def test_a_name_is_one_broker_in_memory() -> None:
    with pytest.raises(ValueError, match="a name has letters"):
        address_of("memory://a,b")


class Living:
    """A machine that is connected, as far as its heartbeat looks."""

    def __init__(self, is_hurried: bool) -> None:
        self.session = Session("x", None, lambda settlements: None)
        self.session.is_open = True
        self.timers = Timers()
        self.frames: list[bytes] = []
        self.closed: str | None = None
        self.received_ms = self.now_ms = 0
        self.lost_ms: int | None = None
        self.heartbeat = Heartbeat(self)
        self.heartbeat.is_hurried = is_hurried
        self.heartbeat.begin(0)

    def act(self, events: object, now_ms: int) -> None:
        """Nothing happened."""

    def fail(self, error: Exception, now_ms: int) -> None:
        self.lost_ms = now_ms
        self.session.is_open = False

    def pass_ms(self, until_ms: int, late_ms: int = 0) -> None:
        """Let time pass, and look at what is due, each time so much later."""
        while self.timers.wake_ms + late_ms <= until_ms and self.lost_ms is None:
            self.now_ms = self.timers.wake_ms + late_ms
            for item in self.timers.pop_due(self.now_ms):
                item(self.now_ms)
        self.now_ms = until_ms


@pytest.mark.parametrize(
    ("is_hurried", "within_ms"), [(True, 2 * SEVERAL_MS), (False, 2 * limits.HEARTBEAT_MS)]
)
def test_a_server_that_says_nothing_is_given_up_sooner_where_there_are_others(
    is_hurried: bool, within_ms: int
) -> None:
    machine = Living(is_hurried)
    machine.pass_ms(HOUR_MS)
    assert machine.lost_ms is not None
    assert within_ms < machine.lost_ms <= within_ms + 2 * SLOT_MS


def test_a_program_that_stood_still_does_not_blame_its_server() -> None:
    machine = Living(is_hurried=True)
    machine.pass_ms(HOUR_MS, late_ms=2 * SEVERAL_MS)
    assert machine.lost_ms is None
    machine.pass_ms(2 * HOUR_MS)
    assert machine.lost_ms is not None
