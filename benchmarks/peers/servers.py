"""The server processes: each on a fresh directory and a free port, in a process group that dies as one.

A server keeps its directory and port over a crash, so that `kill` and `start` make a restart.
"""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from benchmarks.peers.sides import find, kafka_libs
from benchmarks.processes import COMPILED, cpu_seconds, free_port, resident_bytes

START_TIMEOUT_S = 180.0  # with a backlog
VERSION = re.compile(r"\d+\.\d+(?:\.\d+)?")


class SideFailed(Exception):
    """A server or a client of a side ended, or does not answer; the row is lost, the others go on."""


class Server(ABC):
    """One server; `option` is that of its side, or flags for minibroker."""

    program = ""
    scheme = ""
    version_flags: Sequence[str] = ("--version",)
    # Of work before its first figure: a new server has files to make, and tables to grow.
    warm_up_s = 2.0

    def __init__(self, folder: Path, option: str) -> None:
        self.folder, self.option, self.port = folder, option, free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)

    @property
    def url(self) -> str:
        """The address, as the client takes it."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @abstractmethod
    def command(self) -> list[str]:
        """Return the arguments behind the program."""

    def environment(self) -> dict[str, str]:
        """Return variables that the program needs beside those of this process."""
        return {}

    def executable(self) -> list[str]:
        """Return the path of the program."""
        path = find(self.program)
        assert path is not None, self.program
        return [path]

    def launch(self) -> None:
        """Start the process; returns before it listens."""
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                [*self.executable(), *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env={**os.environ, **self.environment()},
                start_new_session=True,
            )

    def start(self) -> None:
        """Start the process and return when its port is open."""
        self.launch()
        ends = monotonic() + START_TIMEOUT_S
        while not self.listens():
            if monotonic() > ends or self.pid_ended():
                raise SideFailed(f"{self.program} did not start:\n{self.printed()}")
            sleep(0.005)

    def listens(self) -> bool:
        """Return whether something accepts connections on the port."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def pid_ended(self) -> bool:
        """Return whether the process is gone."""
        return self.process is None or self.process.poll() is not None

    def printed(self) -> str:
        """Return the end of what the server wrote."""
        return (self.folder / "output").read_text("utf-8", "replace")[-2_000:]

    def kill(self) -> None:
        """End the whole process group as a crash would."""
        if self.process is not None:
            with suppress(ProcessLookupError):  # it ended by itself, with its children
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def close(self) -> None:
        """End everything that belongs to the server."""
        self.kill()

    def cpu_s(self) -> float:
        """Return the CPU time that the server and its children have used."""
        assert self.process is not None
        return cpu_seconds(self.process.pid)

    def resident(self) -> int:
        """Return the resident memory of the server and its children in bytes."""
        assert self.process is not None
        return resident_bytes(self.process.pid)

    def version(self) -> str:
        """Return the version as the program tells it."""
        ran = subprocess.run(
            [*self.executable(), *self.version_flags], capture_output=True, text=True, check=False
        )
        found = VERSION.search(ran.stdout + ran.stderr)
        return found[0] if found else "unknown"


class MinibrokerServer(Server):
    """minibroker with its defaults; `option` may hold more flags."""

    program, scheme = sys.executable, "minibroker"

    def executable(self) -> list[str]:
        """Return how the broker of this checkout is run."""
        return [sys.executable, "-m", "minibrokerd"]

    def environment(self) -> dict[str, str]:
        """Return what lets the interpreter keep the modules that it compiled."""
        return COMPILED

    def command(self) -> list[str]:
        """Return the flags of serve."""
        data_dir = str(self.folder / "data")
        return [
            "serve", "--data-dir", data_dir, "--port", str(self.port), *self.option.split()
        ]  # fmt: skip


class RedisServer(Server):
    """Redis with an append-only file; `option` is its appendfsync."""

    program, scheme = "redis-server", "redis"

    def command(self) -> list[str]:
        """Return the settings that differ from the defaults; no snapshots beside the file."""
        flags = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": self.option,
        }
        return [part for name, value in flags.items() for part in (f"--{name}", value)]


class RabbitServer(Server):
    """RabbitMQ: one node; the kind of queue is up to the client.

    It has a port mapper of its own, unless it is to join the node `joins`, and so uses that one's.
    """

    program, scheme = "/usr/lib/rabbitmq/bin/rabbitmq-server", "amqp"

    def __init__(self, folder: Path, option: str, joins: RabbitServer | None = None) -> None:
        super().__init__(folder, option)
        self.node = f"peer{self.port}@localhost"
        self._home: Path = joins._home if joins else folder  # where the cookie lies
        self._mapper_port: int = joins._mapper_port if joins else free_port()
        self._distribution_port = free_port()
        self._printed_before = 0
        (folder / "rabbitmq.conf").write_text("log.console = true\nlog.file = false\n")
        (folder / "plugins").write_text("[].\n")
        self._mapper: subprocess.Popen[bytes] | None = None
        if joins is None:  # started here and not by the node, whose own would outlive everything
            self._mapper = subprocess.Popen(
                ["epmd", "-address", "127.0.0.1", "-port", str(self._mapper_port)]
            )

    def command(self) -> list[str]:
        """Return nothing: all is said in the environment."""
        return []

    def environment(self) -> dict[str, str]:
        """Return places and ports; nothing of a node that the machine may have is touched."""
        folder = str(self.folder)
        return {
            "HOME": str(self._home),
            "ERL_EPMD_PORT": str(self._mapper_port),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
        }

    def launch(self) -> None:
        """Start the node, and remember where its output begins."""
        output = self.folder / "output"
        self._printed_before = output.stat().st_size if output.exists() else 0
        super().launch()

    def listens(self) -> bool:
        """Return whether the node says so: it opens its port once, early, only to try it."""
        printed = (self.folder / "output").read_bytes()[self._printed_before :]
        return b"started TCP listener" in printed and super().listens()

    def close(self) -> None:
        """End the node and the port mapper."""
        super().close()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()

    def version(self) -> str:
        """Return the version that stands in the path of its library; asking would start a node."""
        found = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*"))
        return found[-1].name.partition("-")[2] if found else "unknown"


class NatsServer(Server):
    """NATS with JetStream; `option` is its sync_interval."""

    program, scheme = "nats-server", "nats"

    def command(self) -> list[str]:
        """Write the configuration and return the flag that names it."""
        store = f'store_dir: "{self.folder}", sync_interval: {self.option}'
        config = self.folder / "nats.conf"
        config.write_text(f"listen: 127.0.0.1:{self.port}\njetstream {{ {store} }}\n")
        return ["-c", str(config)]


class BeanstalkdServer(Server):
    """beanstalkd with a log; `option` is the time between two syncs in milliseconds."""

    program, scheme = "beanstalkd", "beanstalkd"
    version_flags = ("-v",)

    def command(self) -> list[str]:
        """Return the flags; -z lets it take what is more than 64 KiB."""
        address = ["-l", "127.0.0.1", "-p", str(self.port)]
        return [*address, "-b", str(self.folder), f"-f{self.option}", "-z", str(2**20)]


class KafkaServer(Server):
    """Kafka, one node that is its own controller (KRaft); `option` is its log.flush.interval.messages, if any."""

    program, scheme = "java", "kafka"
    # A JVM compiles what has run often: without, the first works have a quarter of the later ones' rates.
    warm_up_s = 10.0
    # The heap and the collector of kafka-server-start.sh.
    flags: Sequence[str] = (
        *("-server", "-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"),
        "-XX:-UsePerfData",  # its file in the folder of temporary files would outlive a kill
    )

    def __init__(self, folder: Path, option: str) -> None:
        super().__init__(folder, option)
        self._data = folder / "data"
        self._settings = folder / "server.properties"
        controller = f"127.0.0.1:{free_port()}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "log.dirs": self._data,
            "num.partitions": 1,
            # There is one node, and one group of one consumer, which need not wait for more of them.
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            # After a kill it is not let in again before the session of its past self has run out.
            "broker.session.timeout.ms": 1_000,
            "broker.heartbeat.interval.ms": 200,
        }
        if option:
            # For all topics: that of the committed offsets, which are the acks, must be synced as well.
            settings["log.flush.interval.messages"] = option
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def executable(self) -> list[str]:
        """Return the JVM with all jars."""
        return [*super().executable(), *self.flags, "-cp", f"{kafka_libs()}/*"]

    def command(self) -> list[str]:
        """Return the main class and its settings."""
        return ["kafka.Kafka", str(self._settings)]

    def launch(self) -> None:
        """Format the storage before the first start."""
        if not (self._data / "meta.properties").exists():
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            ran = subprocess.run(
                [
                    *self.executable(),
                    "kafka.tools.StorageTool",
                    "format",
                    f"--cluster-id={cluster}",  # in one argument: it may begin with a minus
                    f"--config={self._settings}",
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                cwd=self.folder,
                check=False,
            )
            if ran.returncode:
                raise SideFailed(
                    f"the storage of Kafka was not formatted:\n{ran.stdout}{ran.stderr}"
                )
        super().launch()

    def version(self) -> str:
        """Return the version that stands in the name of its jar; asking would take a JVM."""
        found = sorted(kafka_libs().glob("kafka_2.*.jar"))
        return found[-1].stem.partition("-")[2] if found else "unknown"


SERVERS: dict[str, type[Server]] = {
    "minibroker": MinibrokerServer,
    "redis": RedisServer,
    "redis_lists": RedisServer,
    "rabbitmq": RabbitServer,
    "nats": NatsServer,
    "beanstalkd": BeanstalkdServer,
    "kafka": KafkaServer,
}
