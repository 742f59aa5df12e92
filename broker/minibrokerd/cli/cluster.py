"""`minibroker cluster`: brokers that share a log in a stream, as they and the servers of NATS say.

They are asked by way of NATS and not at their ports, so it works while nobody leads. `step-down` needs no token:
whoever may write to the stream could depose the broker that leads.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from minibrokerd.cli.check import Plugin
from minibrokerd.cli.group import Group
from minibrokerd.cli.looking import ago
from minibrokerd.cli.options import json_option, option, shared_option
from minibrokerd.cli.printing import fail, print_json, print_table, say, say_line
from minibrokerd.cli.ranges import Duration
from minibrokerd.cli.serve import LogAddress
from minibrokerd.log.failures import LogError
from minibrokerd.monitoring.checks import Level
from minibrokerd.process import exits
from minibrokerd.replicated.members import (
    LEADS,
    STANDS_BY,
    STEP_DOWN,
    WHO,
    Member,
    consent_of,
    members_of,
)
from minibrokerd.replicated.stream import Info, StreamAway
from minibrokerd.text.units import size_text

if TYPE_CHECKING:
    from minibrokerd.replicated.nats_stream import NatsStream
    from minibrokerd.replicated.stream_address import StreamAddress

Answer = TypeVar("Answer")
ANSWER_S: Final = 1.0  # for brokers to say who they are
CONSENT_S: Final = 5.0
MOST_BROKERS: Final = 100
LOOK_S: Final = 0.1  # between two looks whether another broker leads


class Claim(NamedTuple):
    """The newest epoch record that is still there: its number, who wrote it, and when."""

    epoch: int
    owner: str
    unix_ms: int


class Cluster(NamedTuple):
    """What was found: the brokers that answered, the newest claim, and the stream; None: not known."""

    brokers: list[Member]
    claim: Claim | None
    info: Info

    @property
    def leader(self) -> Member | None:
        """Return the broker that says that it leads, the one of the newest epoch."""
        first = self.brokers[0] if self.brokers else None
        return first if first is not None and first.state == LEADS else None


def log_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--log`, which says where a cluster is."""
    return shared_option(
        "--log",
        type=LogAddress(),
        required=True,
        help="The stream that the brokers share, as `serve --log` has it: nats://a,b,c/stream.",
    )(function)


@click.group(cls=Group)
def cluster() -> None:
    """Look at brokers that share a log: status, check, step-down."""


@cluster.command()
@log_option
@json_option
def status(log: StreamAddress, as_json: bool) -> None:
    """Show who leads, who stands by, and how the stream is."""
    found = ask(log, look)
    if as_json:
        print_json(document(log, found))
        return
    leader, info = found.leader, found.info
    if leader is not None:
        say(f"{leader.address} leads, epoch {leader.epoch}, for {ago(leader.since_unix_ms)}")
    elif found.claim is not None:
        claim = found.claim
        say(
            f"nobody says that it leads; epoch {claim.epoch} is of {claim.owner}, {ago(claim.unix_ms)} ago"
        )
    else:
        say("nobody says that it leads")
    behind = f", behind or away: {', '.join(info.behind)}" if info.behind else ""
    servers = (
        f"led by {info.leader} of {', '.join(info.servers)}{behind}"
        if info.leader
        else "without a leader"
    )
    count = info.last - info.first + 1
    entries = f"{size_text(info.size_bytes)} in {count:,} {'entry' if count == 1 else 'entries'}"
    say(f"stream {log.stream}: {servers}; {entries}")
    say()
    rows = [
        (
            each.address,
            each.state,
            each.epoch or "-",
            ago(each.since_unix_ms),
            "-" if each.lag_ms < 0 else f"{each.lag_ms / 1_000:.1f} s",
            each.version,
            each.name,
        )
        for each in found.brokers
    ]
    heads = ("address", "state", "epoch", "for", "behind", "version", "broker")
    print_table(heads, rows, "no broker answers", ("address", "broker"))


@cluster.command("step-down")
@log_option
@option(
    "--wait",
    type=Duration(100),
    default="30s",
    help="How long to wait until another broker leads.",
)
@json_option
def step_down(log: StreamAddress, wait: float, as_json: bool) -> None:
    """Have the broker that leads stop in good order, so that one that stands by leads.

    Exit code 0: another one leads. 1: none does in time, or nobody stands by. It ends with 74, so its supervisor
    starts it again, and then it stands by.
    """

    async def hand_over(stream: NatsStream) -> tuple[Member, Member, float]:
        before = members_of(await stream.ask_brokers(WHO, ANSWER_S, MOST_BROKERS))
        leader = before[0] if before and before[0].state == LEADS else None
        if leader is None:
            fail("nobody says that it leads; see `minibroker cluster status`", exits.REFUSED)
        if not any(each.state == STANDS_BY for each in before):
            fail(
                f"{leader.address} leads and nobody stands by, so nobody would lead: start another broker first",
                exits.REFUSED,
            )
        began_s = time.monotonic()
        said = await stream.ask_brokers(STEP_DOWN, CONSENT_S, 1)
        consent = consent_of(said[0]) if said else None
        if consent is None or consent.refused:
            why = consent.refused if consent is not None else "it does not answer"
            fail(f"{leader.address} does not step down: {why}", exits.REFUSED)
        while time.monotonic() - began_s < wait:
            now = members_of(await stream.ask_brokers(WHO, LOOK_S, MOST_BROKERS))
            if now and now[0].state == LEADS and now[0].epoch > leader.epoch:
                break
        else:
            fail(f"{leader.address} has stepped down, and no other broker leads yet", exits.REFUSED)
        return leader, now[0], round(time.monotonic() - began_s, 3)

    before, after, took_s = ask(log, hand_over)
    if as_json:
        print_json(
            {"before": before.address, "leader": after.address, "epoch": after.epoch, "s": took_s}
        )
    else:
        say(
            f"{after.address} leads, epoch {after.epoch}, in the place of {before.address}, after {took_s:.1f} s"
        )


@cluster.command(cls=Plugin)
@log_option
@json_option
def check(log: StreamAddress, as_json: bool) -> None:
    """Say whether the cluster is well, as a plug-in of a monitoring system.

    Exit code 0: OK. 1: WARNING, nobody stands by, or a server of NATS is behind or away. 2: CRITICAL, nobody
    leads, or the stream has no leader. 3: not known, as with wrong flags.
    """
    try:
        level, text = judge(ask(log, look, raises=True))
    except StreamAway as away:
        level, text = Level.CRITICAL, f"the log in {log} cannot be reached: {away}"
    except LogError as error:
        level, text = Level.UNKNOWN, str(error)
    if as_json:
        print_json({"level": level.name.lower(), "text": text})
    else:
        say_line(f"MINIBROKER CLUSTER {level.name} - {text}")
    sys.exit(int(level))


def judge(found: Cluster) -> tuple[Level, str]:
    """Return how bad it is, and what is: the worst first."""
    standbys = sum(each.state == STANDS_BY for each in found.brokers)
    critical, warning = [], []
    if found.leader is None:
        critical.append("nobody says that it leads")
    if not found.info.leader:
        critical.append("the stream has no leader")
    if not standbys:
        warning.append("nobody stands by")
    if found.info.behind:
        warning.append(f"behind or away: {', '.join(found.info.behind)}")
    if wrong := critical + warning:
        return Level.CRITICAL if critical else Level.WARNING, "; ".join(wrong)
    assert found.leader is not None
    return Level.OK, f"{found.leader.address} leads, {standbys} on standby"


def document(log: StreamAddress, found: Cluster) -> dict[str, Any]:
    """Return what was found as a JSON document."""
    leader, claim, info = found.leader, found.claim, found.info
    brokers = [
        {
            "address": each.address,
            "state": each.state,
            "epoch": each.epoch or None,
            "since_unix_ms": each.since_unix_ms,
            "behind_ms": None if each.lag_ms < 0 else each.lag_ms,
            "version": each.version,
            "name": each.name,
        }
        for each in found.brokers
    ]
    return {
        "log": str(log),
        "leader": None if leader is None else leader.address,
        "epoch": leader.epoch if leader is not None else claim and claim.epoch,
        "since_unix_ms": leader.since_unix_ms if leader is not None else claim and claim.unix_ms,
        "brokers": brokers,
        "stream": {
            "leader": info.leader or None,
            "servers": list(info.servers),
            "behind": list(info.behind),
            "entries": info.last - info.first + 1,
            "bytes": info.size_bytes,
        },
    }


async def look(stream: NatsStream) -> Cluster:
    """Return what is there; StreamAway."""
    info = await stream.info()
    claim = await stream.newest_claim()
    brokers = members_of(await stream.ask_brokers(WHO, ANSWER_S, MOST_BROKERS))
    return Cluster(brokers, None if claim is None else _claim_of(*claim), info)


def ask(
    log: StreamAddress,
    question: Callable[[NatsStream], Awaitable[Answer]],
    *,
    raises: bool = False,
) -> Answer:
    """Return the answer of a connection of its own; end the command if there is none.

    `raises`: StreamAway and LogError are for the caller.
    """
    from minibrokerd.replicated.nats_stream import NatsStream

    async def asked() -> Answer:
        stream = NatsStream(log)
        try:
            await stream.connect()
            return await question(stream)
        finally:
            await stream.close()

    try:
        return asyncio.run(asked())
    except (StreamAway, LogError) as error:
        if raises:
            raise
        if isinstance(error, LogError):
            fail(str(error), error.exit_code)
        advice = "see that most servers of NATS run, and that the stream is called so"
        fail(f"the log in {log} cannot be reached: {error}; {advice}", exits.UNREACHABLE)


def _claim_of(entry: Any, stored: str) -> Claim | None:
    from minibrokerd.replicated.entries import Assembly, BadEntry, statement_of

    try:
        whole = Assembly().add(entry)
        if whole is None:
            return None
        owner = statement_of(whole).owner
    except BadEntry:
        return None  # of a newer version, or of somebody else
    try:  # nanoseconds, and a Z
        unix_ms = round(datetime.fromisoformat(f"{stored[:19]}+00:00").timestamp() * 1_000)
    except ValueError:
        unix_ms = 0
    return Claim(whole.header.epoch, owner, unix_ms)
