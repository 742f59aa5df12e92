"""The names of `minibroker`: complete, documented, and usable by help, type checkers and mocks."""

from __future__ import annotations

import inspect
import pydoc
import tomllib
import typing
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import create_autospec

import pytest

import minibroker
from minibroker.contract import errors
from support.source import ROOT

CLASSES = [name for name in minibroker.__all__ if inspect.isclass(getattr(minibroker, name))]


def own_callables(name: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public methods that a class of this package defines."""
    for attribute in vars(getattr(minibroker, name)):
        method = getattr(getattr(minibroker, name), attribute)
        if not attribute.startswith("_") and callable(method) and hasattr(method, "__code__"):
            yield attribute, method


def test_there_is_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert minibroker.__version__ == project["version"]


def test_each_name_is_there_once_and_in_order() -> None:
    assert sorted(set(minibroker.__all__)) == list(minibroker.__all__)
    namespace: dict[str, object] = {}
    exec("from minibroker import *", namespace)
    assert set(minibroker.__all__) <= set(namespace)


def test_every_error_is_public() -> None:
    found = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.MinibrokerError)
    }
    assert found <= set(minibroker.__all__)


@pytest.mark.parametrize("name", [name for name in minibroker.__all__ if name[0] != "_"])
def test_help_shows_it(name: str) -> None:
    assert pydoc.render_doc(getattr(minibroker, name))


@pytest.mark.parametrize("name", [*CLASSES, "connect"])
def test_it_has_a_signature_and_can_be_mocked(name: str) -> None:
    value = getattr(minibroker, name)
    inspect.signature(value)
    create_autospec(value)
    if inspect.isclass(value):
        create_autospec(value, instance=True)
        for attribute, method in own_callables(name):
            inspect.signature(method)
            assert typing.get_type_hints(method) is not None, attribute


@pytest.mark.parametrize(
    "name", ["Broker", "Queue", "Message", "Consumption", "Connecting", "LazyBroker", "Peeked"]
)
def test_what_a_method_returns_or_takes_can_be_annotated(name: str) -> None:
    """Each class of this package in an annotation is a public name, so that users can write it, too."""
    for attribute, method in own_callables(name):
        for hint in typing.get_type_hints(method).values():
            for part in _parts(hint):
                if inspect.isclass(part) and part.__module__.startswith("minibroker"):
                    assert part.__name__ in minibroker.__all__, (attribute, part)


def _parts(hint: Any) -> Iterator[Any]:
    yield typing.get_origin(hint) or hint
    for part in typing.get_args(hint):
        if not isinstance(part, list):
            yield from _parts(part)


async def test_a_mock_of_a_queue_is_awaited_as_the_queue() -> None:
    queue = create_autospec(minibroker.Queue, instance=True)
    queue.publish.return_value = minibroker.Confirm(1, 0, "sync")
    assert (await queue.publish(b"x", delay=5)).id == minibroker.MessageId(1, 0)
    with pytest.raises(TypeError):
        await queue.publish(b"x", later=5)
    with pytest.raises(AttributeError):
        queue.send  # noqa: B018 - asking for it is what raises
