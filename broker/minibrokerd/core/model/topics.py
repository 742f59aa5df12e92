"""Patterns of topics, as a trie: words with dots between them, `*` for one word, `#` for none or more.

All paths that a routing key may take are walked at once, so a match is bounded by its words times the nodes that
they reach, whatever the patterns are like.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Generic, TypeVar

ONE: Final = "*"
ANY: Final = "#"
MOST_NODES: Final = 20_000  # that one match looks at, below 10 ms

Target = TypeVar("Target")


_NOTHING: Final[
    Any
] = {}  # of the nodes that have none of something: most of them; nobody enters anything


class _Node(Generic[Target]):
    __slots__ = ("children", "repeats", "targets")

    def __init__(self, word: str) -> None:
        self.children: dict[str, _Node[Target]] = _NOTHING
        self.repeats = word == ANY  # each word that comes leads here again
        self.targets: dict[Target, None] = _NOTHING


class Topics(Generic[Target]):
    """Targets by the patterns that lead to them; `nodes` is what it has beside its root."""

    __slots__ = ("_root", "nodes")

    def __init__(self) -> None:
        self._root: _Node[Target] = _Node("")
        self.nodes = 0

    def add(self, pattern: str, target: Target) -> None:
        """Let a pattern lead to a target."""
        node = self._root
        for word in _words(pattern):
            child = node.children.get(word)
            if child is None:
                if node.children is _NOTHING:
                    node.children = {}
                child = node.children[word] = _Node(word)
                self.nodes += 1
            node = child
        if node.targets is _NOTHING:
            node.targets = {}
        node.targets[target] = None

    def remove(self, pattern: str, target: Target) -> None:
        """Let it lead there no more, as it does now. What no other pattern needs is given back."""
        node, path = self._root, []
        for word in _words(pattern):
            path.append((node, word))
            node = node.children[word]
        del node.targets[target]
        while path and not (node.targets or node.children):
            node, word = path.pop()
            del node.children[word]
            self.nodes -= 1

    def missing(self, pattern: str) -> int:
        """Return how many nodes a pattern needs that are not here."""
        node, words = self._root, _words(pattern)
        for at, word in enumerate(words):
            child = node.children.get(word)
            if child is None:
                return len(words) - at
            node = child
        return 0

    def match(self, routing_key: str, most_nodes: int = MOST_NODES) -> list[Target] | None:
        """Return the targets of all patterns that take a routing key, each once; None: too much to look at."""
        nodes = _open([self._root])
        for word in _words(routing_key):
            most_nodes -= len(nodes)
            if most_nodes < 0:
                return None
            reached = [node for node in nodes if node.repeats]
            for node in nodes:
                children = node.children
                if word in children:
                    reached.append(children[word])
                if ONE in children:
                    reached.append(children[ONE])
            nodes = _open(reached)
        return list({target: None for node in nodes for target in node.targets})


def _words(text: str) -> list[str]:
    return text.split(".") if text else []


def _open(nodes: Iterable[_Node[Target]]) -> dict[_Node[Target], None]:
    """Return nodes, each once, with those that are reached by no word at all."""
    found: dict[_Node[Target], None] = {}
    for node in nodes:
        found[node] = None
        child = node.children.get(ANY)
        while child is not None:
            found[child] = None
            child = child.children.get(ANY)
    return found
