"""The layers that look for a bug, each as a command in a copy of the project.

Names: `model`, `sim`, `logs` (worlds of the simulation that have retained logs), `streams` (brokers on simulated
streams), `standing` (worlds of the simulation on a stream, with brokers that stand by), `cuts:<workload>`,
`flips:<closed|open>`, or a test file below tests/, maybe with `::` and the name of a test. All take one seed;
the same seed finds the same. What a command prints at its end says what found it.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from copied_tree import Ended, Tree

MODEL_EXAMPLES: Final = 200
MODEL_STEPS: Final = 40
SIM_WORLDS: Final = 60
WORLDS: Final = ("sim", "logs", "streams", "standing")
HARNESS: Final = ("model", *WORLDS, "cuts", "flips")
_BY: Final = re.compile(r"^(?:by=|FAILED tests/)(.*)$", re.MULTILINE)
_REASON: Final = re.compile(r"^E[ |]+((?:[\w.]*Error|assert|Failed)\b.*)$", re.MULTILINE)
_SHOWN_CHARS: Final = 150


class Broken(Exception):
    """A layer could not do its work: neither found nor not found."""


class Found(NamedTuple):
    """What found a bug: a test with its reason, or an invariant, and the seed of the run or of its world."""

    by: str
    seed: int


def is_harness(layer: str) -> bool:
    """Whether a layer is a harness, which knows no bug before it sees one, and no single test."""
    return layer.partition(":")[0] in HARNESS


def look(
    tree: Tree, layer: str, seed: int, limit_s: float, worlds: int = SIM_WORLDS
) -> Found | None:
    """Let one layer look for a bug, the simulation in `worlds` worlds; None: nothing was found in this time.

    Raises:
        Broken: the layer itself does not work in this copy.
    """
    arguments, environment = _command(layer, seed, worlds)
    ended = tree.run(arguments, limit_s, **environment)
    if ended.status in (0, None):
        return None
    if ended.status != 1:
        raise Broken(f"{layer} ended with {ended.status}:\n{ended.output[-2_000:]}")
    return _found(ended, layer, seed)


def _command(layer: str, seed: int, worlds: int) -> tuple[list[str], dict[str, str]]:
    kind, _, what = layer.partition(":")
    if kind in WORLDS:
        return ["tests/planted/probe.py", kind, str(seed), str(worlds)], {}
    if kind in ("cuts", "flips"):
        return ["tests/planted/probe.py", kind, str(seed), what], {}
    file = "core/test_model.py" if kind == "model" else layer
    return [
        "-m", "pytest", "-x", "-q", "-rf", "-p", "no_shrinking", "-p", "no:cacheprovider",
        f"--hypothesis-seed={seed}", f"tests/{file}",
    ], {
        "MINIBROKER_MODEL_EXAMPLES": str(MODEL_EXAMPLES),
        "MINIBROKER_MODEL_STEPS": str(MODEL_STEPS),
        "SEED": str(seed),
    }  # fmt: skip


def _found(ended: Ended, layer: str, seed: int) -> Found:
    shown = _BY.findall(ended.output)
    if not shown:
        raise Broken(f"{layer} failed and does not say by what:\n{ended.output[-2_000:]}")
    by = shown[-1]
    if (world := re.match(r"seed=(\d+) ", by)) is not None:
        return Found(by[world.end() :][:_SHOWN_CHARS], int(world[1]))
    test = by.partition(" - ")[0]
    reasons = _REASON.findall(ended.output)
    return Found(f"{test}: {reasons[0] if reasons else ''}"[:_SHOWN_CHARS], seed)
