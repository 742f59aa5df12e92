"""Three servers of NATS and two brokers, each process of which can be killed or stand still, and each way be cut.

Broker 1 is on the machine of server a, and broker 2 on that of b: each moves the leader of the stream away from
its own. Whoever ends is started again by `restart`, as a supervisor would.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import IO, Final

from cluster_links import Links

from minibrokerd.process import exits
from minibrokerd.replicated.failures import StreamUnreachable
from minibrokerd.replicated.members import LEADS, STANDS_BY, STEP_DOWN, WHO, Member, members_of
from minibrokerd.replicated.nats_stream import NatsStream
from minibrokerd.replicated.stream import Info, StreamAway
from minibrokerd.replicated.stream_address import parse
from support.broker import BrokerServer
from support.nats_nodes import Node, free_ports
from support.processes import Process, lasts

NAMES: Final = ("a", "b", "c")
STREAM: Final = "orders"
NOWHERE: Final = "127.0.0.1:9"  # what others are told of a place: they are to go by the links
WHOLE_S: Final = 90.0  # until everything leads, follows and is up to date again
TRIES: Final = 4  # to make the stream, each for 15 s
LOOK_S: Final = 0.1
ANSWERS_S: Final = 0.5
# With which a broker may end, none of which says that something is wrong with it.
FINE_CODES: Final = frozenset({exits.DONE, exits.DEPOSED, exits.UNREACHABLE, -signal.SIGKILL})


class Broker(BrokerServer):
    """A broker that may stand by, and when it said what."""

    def __init__(self, name: str, data_dir: Path, *flags: str, port: int) -> None:
        self.name = name
        self.said: list[tuple[int, str]] = []  # monotonic ns, and a line
        self.is_paused = False
        super().__init__(data_dir, *flags, port=port)

    def _start(self) -> Process:
        process, output = self._popen()
        self._read(output)
        return process

    def _drain(self, output: IO[str], arrived: object) -> None:
        with output:
            for line in output:
                self.lines.append(line.rstrip("\n"))
                self.said.append((monotonic_ns(), line.rstrip("\n")))

    def last_ns(self, text: str) -> int:
        """Return when it last said a text; 0: it never did."""
        return next((at for at, line in reversed(self.said) if text in line), 0)


class Cluster:
    """All of it; `Links` between."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self.links = Links()
        self._stack.callback(self.links.close)
        ports = free_ports(8)
        clients, peers, self.ports = ports[:3], ports[3:6], ports[6:]
        self.nodes: dict[str, Node] = {}
        self.codes: list[tuple[str, int]] = []  # with which brokers ended by themselves
        self._paused: list[Node] = []
        for name, port, peer in zip(NAMES, clients, peers, strict=True):
            routes = [
                f'"nats://127.0.0.1:{self.links.link(f"{name}>{other}", its)}"'
                for other, its in zip(NAMES, peers, strict=True)
                if other != name
            ]
            config = (
                f"server_name: {name}\nlisten: 127.0.0.1:{port}\n"
                f'jetstream {{ store_dir: "{folder / name}", sync_interval: always }}\n'
                f'cluster {{ name: minibroker, listen: 127.0.0.1:{peer}, advertise: "{NOWHERE}", '
                f"no_advertise: true, routes: [{', '.join(routes)}] }}\n"
            )
            self.nodes[name] = Node(folder / name, name, port, config)
            self._stack.callback(self.nodes[name].kill)
        self._clients = dict(zip(NAMES, clients, strict=True))
        for node in self.nodes.values():
            node.start()
        places = ",".join(f"127.0.0.1:{port}" for port in clients)
        self.address = f"nats://{places}/{STREAM}?replicas=3"
        asyncio.run(self._make_stream())
        self.brokers: dict[str, Broker] = {}
        for name, beside, port in zip("12", NAMES, self.ports, strict=False):
            self._add_broker(name, beside, port, folder)

    async def _make_stream(self) -> None:
        for attempt in range(TRIES):
            stream = NatsStream(parse(self.address))
            try:
                await stream.open()
                break
            except StreamUnreachable:  # a cluster that has just started
                if attempt == TRIES - 1:
                    raise
            finally:
                await stream.close()

    def _add_broker(self, name: str, beside: str, port: int, folder: Path) -> None:
        order = [beside, *(other for other in NAMES if other != beside)]
        ways = [self.links.link(f"{name}>{other}", self._clients[other]) for other in order]
        places = ",".join(f"127.0.0.1:{way}" for way in ways)
        log = f"nats://{places}/{STREAM}?replicas=3&beside={beside}"
        flags = ("--log", log, "--standby", "--advertise", NOWHERE, "--no-http")
        broker = Broker(name, folder / f"broker-{name}", *flags, port=port)
        self.brokers[name] = broker
        self._stack.callback(broker.close)
        self._stack.callback(self._wake, broker)

    @staticmethod
    def _wake(broker: Broker) -> None:
        broker.process.send_signal(signal.SIGCONT)

    @property
    def url(self) -> str:
        """The addresses of both brokers, on the straight way."""
        return f"minibroker://{','.join(f'127.0.0.1:{port}' for port in self.ports)}"

    def urls_alone(self) -> dict[str, str]:
        """The address of each broker, by its name."""
        pairs = zip(self.brokers, self.ports, strict=True)
        return {name: f"minibroker://127.0.0.1:{port}" for name, port in pairs}

    def url_through(self, client: str) -> str:
        """Return the addresses of both for a client with links of its own."""
        ports = [
            self.links.link(f"{client}>{name}", port)
            for name, port in zip(self.brokers, self.ports, strict=True)
        ]
        return f"minibroker://{','.join(f'127.0.0.1:{port}' for port in ports)}"

    # -- what there is ------------------------------------------------------------------------------

    def restart(self) -> None:
        """Start again whoever has ended; note with which code."""
        for broker in self.brokers.values():
            if not broker.running:
                broker._wait()
                code = broker.process.returncode
                assert code is not None
                self.codes.append((broker.name, code))
                assert code in FINE_CODES, (
                    f"broker {broker.name} ended with {code}:\n{tail(broker)}"
                )
                broker.process = broker._start()
        for node in self.nodes.values():
            if node.process is None:
                node.start()
            elif node.process.poll() is not None:
                raise AssertionError(
                    f"server {node.name} of NATS ended with {node.process.returncode}"
                )

    def await_whole(self) -> tuple[Broker, Broker, str]:
        """Wait until all of it `is_whole`; restart whoever ends.

        Return both, and which server leads the stream.
        """
        deadline_s = monotonic() + WHOLE_S
        return asyncio.run(self._await_whole(deadline_s))

    async def _await_whole(self, deadline_s: float) -> tuple[Broker, Broker, str]:
        stream = NatsStream(parse(self.address))
        seen: object = "nobody answers"
        try:
            while monotonic() < deadline_s:
                self.restart()  # in this thread: the kernel ends a server with the thread that started it
                try:
                    info = await stream.info()
                    members = members_of(await stream.ask_brokers(WHO, ANSWERS_S, 2))
                except StreamAway as away:
                    seen = away
                    await asyncio.to_thread(self.lasts, LOOK_S)
                    continue
                seen = info, members
                leader = self._leader()
                if leader is not None and is_whole(info, members):
                    (other,) = (each for each in self.brokers.values() if each is not leader)
                    return leader, other, info.leader
                await asyncio.to_thread(self.lasts, LOOK_S)
        finally:
            await stream.close()
        said = "\n".join(tail(broker) for broker in self.brokers.values())
        raise AssertionError(f"not whole within {WHOLE_S} s: {seen}\n{said}")

    def _leader(self) -> Broker | None:
        """Return the broker that has taken over last, by what they said."""
        led = [broker for broker in self.brokers.values() if broker.running]
        newest = max(led, key=lambda broker: broker.last_ns("listening on"), default=None)
        return newest if newest is not None and newest.last_ns("listening on") else None

    # -- faults -------------------------------------------------------------------------------------

    def pause(self, what: Broker | Node) -> None:
        """Have it stand still."""
        self._signal(what, signal.SIGSTOP)
        if isinstance(what, Node):
            self._paused.append(what)
        else:
            what.is_paused = True

    def go_on(self) -> None:
        """Have all go on, and all links whole."""
        self.links.heal()
        for broker in self.brokers.values():
            if broker.is_paused:
                broker.is_paused = False
                broker.process.send_signal(signal.SIGCONT)
        for node in self._paused:
            if node.process is not None:
                node.signal(signal.SIGCONT)
        self._paused.clear()

    @staticmethod
    def _signal(what: Broker | Node, number: int) -> None:
        if isinstance(what, Node):
            what.signal(number)
        else:
            what.process.send_signal(number)

    def step_down(self) -> None:
        """Ask whoever leads to stop in good order."""

        async def ask() -> None:
            stream = NatsStream(parse(self.address))
            await stream.connect()
            await stream.ask_brokers(STEP_DOWN, ANSWERS_S, 1)
            await stream.close()

        asyncio.run(ask())

    def lasts(self, seconds: float) -> None:
        """Let time pass."""
        lasts(self.links.process, seconds)

    def until(self, condition: Callable[[], bool], what: str, deadline_s: float) -> None:
        """Wait for something, and restart whoever ends meanwhile."""
        deadline_s += monotonic()
        while not condition():
            self.lasts(0.02)
            self.restart()
            if monotonic() > deadline_s:
                said = "\n".join(tail(broker) for broker in self.brokers.values())
                raise AssertionError(f"{what}: not in time\n{said}")

    def close(self) -> None:
        """End everything."""
        self._stack.close()


def is_whole(info: Info, members: Sequence[Member]) -> bool:
    """Whether one broker leads and one stands by that has replayed all there is, as all servers have it."""
    if not info.leader or info.behind or len(info.servers) != len(NAMES):
        return False
    if sorted(member.state for member in members) != sorted((LEADS, STANDS_BY)):
        return False
    return all(member.lag_ms == 0 for member in members if member.state == STANDS_BY)


def tail(broker: Broker, count: int = 40) -> str:
    """Return the last that a broker said."""
    lines = [f"{at / 1e9:.3f} {line}" for at, line in broker.said[-count:]]
    return "\n".join([f"broker {broker.name}, running={broker.running}:", *lines])
