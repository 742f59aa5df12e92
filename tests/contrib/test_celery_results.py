"""minibroker as the result backend of Celery: what is kept, who is told, and how chords are counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest

celery = pytest.importorskip("celery", reason="the extra celery is not installed")

import kombu.pools  # noqa: E402
from celery import states  # noqa: E402
from celery.app.task import Context  # noqa: E402
from celery.exceptions import TimeoutError as CeleryTimeout  # noqa: E402
from celery.result import AsyncResult, GroupResult, ResultSet  # noqa: E402

import minibroker.contrib.celery  # noqa: E402
import minibroker.sync  # noqa: E402
from minibroker.contrib.celery import channel, chords, named_values  # noqa: E402
from minibroker.contrib.celery.ends_told import EndsTold  # noqa: E402
from minibroker.contrib.celery.too_large import ResultTooLarge  # noqa: E402
from support.broker import BrokerServer  # noqa: E402
from support.processes import look_until  # noqa: E402


@pytest.fixture
def app(broker_server: BrokerServer) -> Iterator[Any]:
    """An application with both on one broker."""
    minibroker.contrib.celery.register()
    url = broker_server.url
    app = celery.Celery("kept", broker=url, backend=url, set_as_current=False)

    @app.task(name="total", shared=False)
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    yield app
    app.backend.close()
    app.close()
    kombu.pools.reset()


def ready_in(server: BrokerServer) -> dict[str, int]:
    """Return how many messages are ready in each queue."""
    with minibroker.sync.connect(server.url) as broker:
        return {name: each["ready"] for name, each in broker.stats()["queues"].items()}


def later(act: Any) -> threading.Thread:
    """Do something in a thread of its own."""
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def part(group: str, task: str, index: int, body: Any) -> Context:
    """Return the request of a task of a header."""
    return Context({"id": task, "group": group, "group_index": index, "chord": body})


def test_states_are_kept_and_success_stays(app: Any, broker_server: BrokerServer) -> None:
    """Each state replaces the one before; what has succeeded is not made a failure by a second run."""
    backend = app.backend
    assert backend.get_state("t") == states.PENDING
    backend.mark_as_started("t", pid=7)
    assert backend.get_task_meta("t")["result"] == {"pid": 7}
    backend.store_result("t", {"at": 1}, "PROGRESS")
    assert app.AsyncResult("t").info == {"at": 1}
    backend.mark_as_done("t", [1, "two"])
    backend.mark_as_failure("t", KeyError("second run"))
    assert app.AsyncResult("t").get(timeout=5) == [1, "two"]
    backend.mark_as_failure("u", KeyError("no"))
    with pytest.raises(KeyError, match="no"):
        app.AsyncResult("u").get(timeout=5)
    app.AsyncResult("t").forget()
    assert app.AsyncResult("t").state == states.PENDING
    assert not app.AsyncResult("t").exists()
    assert ready_in(broker_server)["celery-results"] == 1, "a look leaves nothing behind"


def test_groups_are_saved_and_restored(app: Any) -> None:
    """As GroupResult.save, restore and delete have it."""
    group = GroupResult("g", [AsyncResult("a", app=app), AsyncResult("b", app=app)], app=app)
    group.save()
    restored = GroupResult.restore("g", app=app)
    assert [each.id for each in restored.results] == ["a", "b"]
    restored.delete()
    assert GroupResult.restore("g", app=app) is None


def test_hundreds_are_waited_for_without_a_poll(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing comes nothing is asked; what comes is looked at together."""
    looks: list[int] = []
    look = named_values.NamedValues.look

    def counted(values: Any, names: Any, *args: Any) -> Any:
        looks.append(len(names))
        return look(values, names, *args)

    monkeypatch.setattr(named_values.NamedValues, "look", counted)
    ids = [f"task-{number}" for number in range(600)]
    results = ResultSet([AsyncResult(id, app=app) for id in ids], app=app)
    with pytest.raises(CeleryTimeout):
        results.join_native(timeout=1.5)  # it waits twice
    assert looks == [500, 100], "each was looked at once"
    thread = later(lambda: [app.backend.mark_as_done(id, number) for number, id in enumerate(ids)])
    assert results.join_native(timeout=100) == list(range(600))
    thread.join()
    assert sum(looks) == 600, "what is told says where the result is"


def test_what_the_server_does_not_take_is_looked_at_in_turns(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes 10,000 requests of a connection: here it takes none."""
    monkeypatch.setattr(EndsTold, "watch", lambda told, ids: told._refused.extend(ids))
    got: list[Any] = []
    thread = later(lambda: got.append(app.AsyncResult("t").get(timeout=30)))
    app.backend.store_result("t", 1, "PROGRESS")
    app.backend.mark_as_done("t", 2)
    thread.join()
    assert got == [2]


def test_each_change_of_state_is_told_to_threads_that_wait(app: Any) -> None:
    """Two threads wait for one task and another for a second one; `on_message` hears what is no end, too."""
    told: list[Any] = []
    got: list[Any] = []
    heard = threading.Event()

    def hear(meta: Any) -> None:
        told.append((meta["status"], meta["result"]))
        heard.set()

    threads = [
        later(lambda id=id: got.append(app.AsyncResult(id).get(timeout=30)))  # type: ignore[misc]
        for id in ("one", "one", "two")
    ]
    threads.append(
        later(lambda: got.append(app.AsyncResult("three").get(timeout=30, on_message=hear)))
    )
    app.backend.store_result("three", 1, "PROGRESS")
    assert heard.wait(30)
    for id in ("two", "one", "three"):
        app.backend.mark_as_done(id, id)
    for thread in threads:
        thread.join()
    assert sorted(got) == ["one", "one", "three", "two"]
    assert told[0] == ("PROGRESS", 1)


def test_waiting_goes_on_while_the_broker_is_killed(app: Any, broker_server: BrokerServer) -> None:
    """Who waits hears of what is stored after the restart, and what was stored before is there."""
    app.backend.mark_as_done("before", 1)
    got: list[Any] = []
    waiting = app.AsyncResult("after")
    thread = later(lambda: got.append(waiting.get(timeout=60)))
    broker_server.kill()
    broker_server.restart()
    assert app.AsyncResult("before").get(timeout=30) == 1
    app.backend.mark_as_done("after", 2)
    thread.join()
    assert got == [2]


def test_a_result_that_is_too_large_is_a_failure_that_is_told(app: Any) -> None:
    """An EncodeError, of which Celery makes a failure; one of a failure is stored shortened."""
    with pytest.raises(ResultTooLarge, match="1048576") as raised:
        app.backend.mark_as_done("t", "x" * 2_000_000)
    assert isinstance(raised.value, kombu.exceptions.EncodeError)
    app.backend.mark_as_failure("t", ValueError("y" * 2_000_000), traceback="z" * 2_000_000)
    with pytest.raises(ValueError, match=r"^yyy") as told:
        app.AsyncResult("t").get(timeout=5)
    assert len(str(told.value)) < 3_000


def test_results_end_by_themselves(app: Any, broker_server: BrokerServer) -> None:
    """`result_expires` is a time to live, and `result_failure_expires` that of failures."""
    app.conf.result_expires = 1
    app.conf.result_failure_expires = 3_600
    backend = app.backend  # made now
    backend.mark_as_done("short", 1)
    backend.mark_as_failure("long", KeyError("kept"))
    with minibroker.sync.connect(broker_server.url) as broker:
        messages = broker.queue("celery-results").peek()
        (short,) = [each for each in messages if b"short" in each.raw]
        with pytest.raises(minibroker.MessageFailed, match="time to live"):
            broker.result(short.id, timeout=30)
    assert backend.get_state("short") == states.PENDING
    assert backend.get_state("long") == states.FAILURE


def test_a_child_of_a_fork_has_a_connection_of_its_own(app: Any) -> None:
    """It stores while its parent waits, and the parent's waiting is not the child's."""
    waiting = app.AsyncResult("child")
    app.backend.add_pending_result(waiting)
    app.backend.result_consumer.drain_events(timeout=0.01)
    child = os.fork()
    if not child:
        try:
            assert not app.backend._pending_results.concrete
            app.backend.mark_as_done("child", os.getpid())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert waiting.get(timeout=30) == child


def test_a_client_that_another_backend_closed_is_opened_again(app: Any) -> None:
    """Each thread has a backend of its own, and all share one client: who waits goes on, too."""
    backend = app.backend
    waiting = app.AsyncResult("t")
    backend.add_pending_result(waiting)
    backend.result_consumer.drain_events(timeout=0.01)
    other = type(backend)(app, url=backend.url)
    assert other.get_state("t") == states.PENDING
    other.close()
    other.mark_as_done("t", 1)
    assert waiting.get(timeout=30) == 1
    assert backend.get_state("t") == states.SUCCESS
    other.close()


def chord_of(app: Any, size: int, group: str = "g") -> Any:
    """Apply a chord of so many parts that nobody runs; return its body."""
    body = app.signature("total", task_id=f"body-of-{group}", app=app)
    app.backend.set_chord_size(group, size)
    return body


def bodies(server: BrokerServer) -> list[Any]:
    """Return the arguments of the tasks that wait."""
    with minibroker.sync.connect(server.url) as broker:
        queue = broker.queue("celery", max_attempts=5)  # made, if there is none
        return [json.loads(each.raw)[0] for each in queue.peek()]


def test_a_part_that_runs_twice_counts_once(app: Any, broker_server: BrokerServer) -> None:
    """Whatever its second run says; the body comes once, with the results in order, and nothing is left."""
    body = chord_of(app, 3)
    for task, index, value in (("c", 2, 3), ("a", 0, 1), ("a", 0, 100), ("c", 2, 3)):
        app.backend.on_chord_part_return(part("g", task, index, body), states.SUCCESS, value)
    assert bodies(broker_server) == []
    app.backend.on_chord_part_return(part("g", "b", 1, body), states.SUCCESS, 2)
    assert bodies(broker_server) == [[[1, 2, 3]]]
    app.backend.on_chord_part_return(part("g", "b", 1, body), states.SUCCESS, 2)
    assert bodies(broker_server) == [[[1, 2, 3]]], "a copy of a part comes after the end"
    chord_of(app, 1)
    app.backend.on_chord_part_return(part("g", "a", 0, body), states.SUCCESS, 5)
    assert len(bodies(broker_server)) == 1, "what the copy left is one part more than there are"


def test_a_part_that_is_said_to_be_over_twice_leaves_nothing(
    app: Any, broker_server: BrokerServer
) -> None:
    """A worker says so of one that is over its hard time limit: it is late, and then its process is gone."""
    body = chord_of(app, 1)
    request = part("g", "a", 0, body)
    for _ in range(2):
        app.backend.on_chord_part_return(request, states.FAILURE, TimeoutError("late"))
    assert "celery-chord-g" not in ready_in(broker_server)


def test_a_part_that_comes_when_its_chord_has_ended_by_itself_counts_nothing(
    app: Any, broker_server: BrokerServer
) -> None:
    """`result_chord_expires` is over: its task has ended all the same, and is no error of the worker."""
    app.conf.result_chord_expires = 1
    body = chord_of(app, 2)
    look_until(
        lambda: "queue_unused" in broker_server.output, broker_server.process, "its queue ended"
    )
    app.backend.on_chord_part_return(part("g", "a", 0, body), states.SUCCESS, 1)
    assert "celery-chord-g" not in ready_in(broker_server)


class Killed(BaseException):
    """Where a process would have been killed."""


@pytest.mark.parametrize("where", ["added", "claimed", "published"])
def test_a_worker_may_be_killed_at_any_step_of_the_last_part(
    app: Any, broker_server: BrokerServer, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The one that runs the part again goes on; the body comes once."""
    body = chord_of(app, 2)
    app.backend.on_chord_part_return(part("g", "a", 0, body), states.SUCCESS, 1)
    step = {"added": "complete", "claimed": "parts", "published": "end"}[where]

    def killed(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(chords.Chord, step, killed)
        with pytest.raises(Killed):
            app.backend.on_chord_part_return(part("g", "b", 1, body), states.SUCCESS, 2)
    app.backend.on_chord_part_return(part("g", "b", 1, body), states.SUCCESS, 7)
    assert bodies(broker_server) == [[[1, 2]]]
    assert "celery-chord-g" not in ready_in(broker_server)


def test_of_two_last_parts_one_goes_on(
    app: Any, broker_server: BrokerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find the chord complete: one while the other goes on, and one that is so late that all has ended."""
    body = chord_of(app, 2)
    complete = chords.Chord.complete
    gone_on: list[bool] = []

    def complete_and_wait(chord: chords.Chord) -> Any:
        standing = complete(chord)
        if standing is not None and not gone_on:
            gone_on.append(True)
            app.backend.on_chord_part_return(part("g", "a", 0, body), states.SUCCESS, 1)
        return standing

    app.backend.on_chord_part_return(part("g", "a", 0, body), states.SUCCESS, 1)
    monkeypatch.setattr(chords.Chord, "complete", complete_and_wait)
    app.backend.on_chord_part_return(part("g", "b", 1, body), states.SUCCESS, 2)
    assert gone_on
    assert bodies(broker_server) == [[[1, 2]]]


def test_a_body_whose_publish_is_tried_again_comes_once(
    app: Any, broker_server: BrokerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery publishes again after a time-out, and what was published before it may have been stored."""
    publish = channel._published
    tried: list[Any] = []

    def unanswered(*args: Any) -> Any:
        publish(*args)
        tried.append(args)
        if len(tried) == 1:
            raise minibroker.OutcomeUnknown("no answer came")

    monkeypatch.setattr(channel, "_published", unanswered)
    body = chord_of(app, 1)
    app.backend.on_chord_part_return(part("g", "a", 0, body), states.SUCCESS, 1)
    assert len(tried) == 2
    assert bodies(broker_server) == [[[1]]]


def test_a_chord_that_is_applied_again_has_its_body_again(
    app: Any, broker_server: BrokerServer
) -> None:
    """A frozen one keeps its ids; what was published once under them is not taken for a copy."""
    for _ in range(2):
        body = chord_of(app, 1)
        app.backend.on_chord_part_return(part("g", "a", 0, body), states.SUCCESS, 1)
    assert bodies(broker_server) == [[[1]], [[1]]]


def test_a_failed_part_fails_the_body(app: Any, broker_server: BrokerServer) -> None:
    """With a ChordError that names it; its errbacks are called, and the body does not run."""
    body = chord_of(app, 2)
    body.link_error(app.signature("total", task_id="errback"))
    app.backend.on_chord_part_return(part("g", "a", 0, body), states.FAILURE, ValueError("bad"))
    app.backend.on_chord_part_return(part("g", "b", 1, body), states.SUCCESS, 2)
    with pytest.raises(celery.exceptions.ChordError, match="Dependency a raised ValueError"):
        app.AsyncResult("body-of-g").get(timeout=5)
    assert bodies(broker_server) == [["body-of-g"]], "the errback alone"


def test_more_parts_and_nested_groups(app: Any, broker_server: BrokerServer) -> None:
    """`add_to_chord` counts, and a header with groups in it keeps its form."""
    body = chord_of(app, 1)
    app.backend.add_to_chord("g", None)
    app.backend.on_chord_part_return(part("g", "a", 0, body), states.SUCCESS, 1)
    assert bodies(broker_server) == []
    inner = GroupResult("inner", [AsyncResult("b", app=app)], app=app)
    app.backend.apply_chord(("g", [AsyncResult("a", app=app), inner]), body)
    for task in ("a", "b"):
        app.backend.mark_as_done(task, task)
    app.backend.on_chord_part_return(part("g", "b", 1, body), states.SUCCESS, "b")
    assert bodies(broker_server) == [[["a", ["b"]]]]


INSTALLED = """
import celery
app = celery.Celery("a", broker="memory://", backend="{scheme}://:secret@127.0.0.1:1")
print(type(app.backend).__name__, app.backend.as_uri())
"""
IN_A_TREE = """
import importlib.metadata
importlib.metadata.entry_points = lambda **words: importlib.metadata.EntryPoints()
{first}import minibroker.contrib.celery
"""


@pytest.mark.parametrize("scheme", ["minibroker", "minibrokers"])
@pytest.mark.parametrize("where", ["installed", "tree", "tree, Celery first"])
def test_celery_knows_the_scheme(scheme: str, where: str) -> None:
    """By an entry point of the installed package; in a source tree by an import, before Celery's or after."""
    program = INSTALLED.format(scheme=scheme)
    if where != "installed":
        first = "import celery.app.base\n" if "first" in where else ""
        program = IN_A_TREE.format(first=first) + program
    elif not entry_points(group="celery.result_backends", name=scheme):
        pytest.skip("this environment was set up before there was one")
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert said.stdout.split() == ["MinibrokerBackend", f"{scheme}://:**@127.0.0.1:1/"], said.stderr
