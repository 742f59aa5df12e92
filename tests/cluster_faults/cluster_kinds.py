"""What can happen to a cluster: one function for each kind of fault, and all of them in `FAULTS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from time import monotonic
from typing import Final

from cluster_links import BACK, BOTH, THERE
from cluster_world import NAMES, Broker, Cluster

# Seconds that somebody stands still, or is cut off: shorter than any silence that counts, about as long, longer.
SPANS: Final = ((0.1, 0.9), (0.9, 3.0), (3.0, 6.0), (6.0, 12.0))

LONGEST_STOP_S: Final = 15.0


@dataclass
class Scene:
    """A whole cluster under load: who leads, who stands by, and which server leads the stream."""

    cluster: Cluster
    random: Random
    leader: Broker
    other: Broker
    leading: str
    clients: Sequence[str]
    cut_clients: list[str] = field(default_factory=list)

    def following(self) -> str:
        """Return a server that does not lead the stream."""
        return self.random.choice([name for name in NAMES if name != self.leading])

    def for_a_while(self) -> None:
        """Let the fault last."""
        self.cluster.lasts(self.random.uniform(*self.random.choice(SPANS)))

    def cut(self, *links: str) -> None:
        """Cut links for a while, all in the same way."""
        how = self.random.choice(("hole", "hole", "reset"))
        ways = self.random.choice((BOTH, BOTH, (THERE,), (BACK,)))
        for link in links:
            self.cluster.links.cut(link, how, ways)
        self.for_a_while()


def _kill_node(scene: Scene, name: str) -> None:
    scene.cluster.nodes[name].kill()


def _pause(scene: Scene, *what: object) -> None:
    for each in what:
        scene.cluster.pause(each)  # type: ignore[arg-type]
    scene.for_a_while()


def _routes(name: str) -> list[str]:
    others = [other for other in NAMES if other != name]
    return [f"{name}>{other}" for other in others] + [f"{other}>{name}" for other in others]


def _beside(broker: Broker) -> str:
    return NAMES[int(broker.name) - 1]


def _until_ended(scene: Scene) -> None:
    deadline_s = monotonic() + LONGEST_STOP_S
    while scene.leader.running and monotonic() < deadline_s:
        scene.cluster.lasts(0.05)


def kill_broker(scene: Scene) -> None:
    """The active broker dies."""
    scene.leader.process.kill()


def kill_standby(scene: Scene) -> None:
    """The other one dies."""
    scene.other.process.kill()


def stop_broker(scene: Scene) -> None:
    """The active broker is stopped in good order."""
    scene.leader.process.terminate()
    _until_ended(scene)


def step_down(scene: Scene) -> None:
    """The active broker is asked to step down."""
    scene.cluster.step_down()
    _until_ended(scene)


def pause_broker(scene: Scene) -> None:
    """The active broker stands still, and goes on."""
    _pause(scene, scene.leader)


def kill_leading_node(scene: Scene) -> None:
    """The server that leads the stream dies."""
    _kill_node(scene, scene.leading)


def kill_node(scene: Scene) -> None:
    """Another server dies."""
    _kill_node(scene, scene.following())


def pause_leading_node(scene: Scene) -> None:
    """The server that leads the stream stands still."""
    _pause(scene, scene.cluster.nodes[scene.leading])


def pause_node(scene: Scene) -> None:
    """Another server stands still."""
    _pause(scene, scene.cluster.nodes[scene.following()])


def kill_both(scene: Scene) -> None:
    """The active broker and a server die at once."""
    scene.leader.process.kill()
    _kill_node(scene, scene.random.choice(NAMES))


def pause_both(scene: Scene) -> None:
    """The active broker and a server stand still."""
    _pause(scene, scene.leader, scene.cluster.nodes[scene.random.choice(NAMES)])


def kill_all_nodes(scene: Scene) -> None:
    """All servers die at once."""
    for name in NAMES:
        _kill_node(scene, name)


def cut_broker_from_node(scene: Scene) -> None:
    """The active broker is cut off from one server."""
    scene.cut(f"{scene.leader.name}>{scene.random.choice(NAMES)}")


def cut_broker_from_nodes(scene: Scene) -> None:
    """The active broker is cut off from all servers, and its clients reach it."""
    scene.cut(*(f"{scene.leader.name}>{name}" for name in NAMES))


def cut_standby(scene: Scene) -> None:
    """The other broker is cut off from all servers."""
    scene.cut(*(f"{scene.other.name}>{name}" for name in NAMES))


def cut_nodes(scene: Scene) -> None:
    """Two servers are cut off from each other."""
    one, two = scene.random.sample(NAMES, 2)
    scene.cut(f"{one}>{two}", f"{two}>{one}")


def cut_node(scene: Scene) -> None:
    """A server is cut off from both others; brokers reach it."""
    scene.cut(*_routes(scene.random.choice(NAMES)))


def cut_leading_node(scene: Scene) -> None:
    """The server that leads the stream is cut off from both others; brokers reach it."""
    scene.cut(*_routes(scene.leading))


def cut_machine(scene: Scene) -> None:
    """The active broker and the server beside it reach each other and their clients, and nobody else."""
    beside = _beside(scene.leader)
    ways = [f"{scene.leader.name}>{name}" for name in NAMES if name != beside]
    scene.cut(*_routes(beside), *ways, f"{scene.other.name}>{beside}")


def cut_clients(scene: Scene) -> None:
    """Some clients are cut off from the active broker."""
    scene.cut_clients += scene.random.sample(scene.clients, scene.random.randint(1, 2))
    scene.cut(*(f"{client}>{scene.leader.name}" for client in scene.cut_clients))


FAULTS: Final[dict[str, Callable[[Scene], None]]] = {
    function.__name__.replace("_", " "): function
    for function in (
        kill_broker, kill_standby, stop_broker, step_down, pause_broker, kill_leading_node, kill_node,
        pause_leading_node, pause_node, kill_both, pause_both, kill_all_nodes, cut_broker_from_node,
        cut_broker_from_nodes, cut_standby, cut_nodes, cut_node, cut_leading_node, cut_machine, cut_clients,
    )
}  # fmt: skip
