"""What nobody waits for any more: a receive, or a consume, whose caller is gone.

An answer may be on its way, or lost with its connection, when the caller goes. What it held goes back to its place
as if it had never been handed out: neither an attempt nor a release is counted, and it waits for nothing. So it is
with a receive that is asked again after its first answer was lost. A session notes for that which delivery answers
which request (and the record of its lease names the request, so that a start knows it), until the client shows
that it has the answer: it names a message of it in a resume, or uses the number again on the same connection.
"""

from __future__ import annotations

from minibrokerd.core.model.deliveries import Consumer, Delivery
from minibrokerd.core.model.noting import forget
from minibrokerd.core.model.sessions import Connection, Session
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.transitions import wait
from minibrokerd.core.verbs.attempts import drop_delivery
from minibrokerd.core.verbs.farewells import end_consumer, end_in_steps


def open_consumer(connection: Connection, consumer: Consumer, request: int | None) -> None:
    """Enter a new consumer, and note which request made it."""
    connection.consumers[consumer.number] = consumer
    if request is not None:
        consumer.opened_by = request
        connection.opened[request] = consumer


def cancel_consumer(store: Store, connection: Connection, consumer: Consumer) -> int:
    """End a consumer: what it has not begun goes back unmarked; return what the answer rests on."""
    del connection.consumers[consumer.number]
    if consumer.opened_by is not None and connection.opened.get(consumer.opened_by) is consumer:
        del connection.opened[consumer.opened_by]
    end_in_steps(store, connection, [consumer], marked=False, only=True)
    return consumer.batch  # no delivery to it may leave after the answer


def end_receive(store: Store, connection: Connection, consumer: Consumer) -> None:
    """End a receive that still waits; it is not answered."""
    assert consumer.request is not None
    del connection.receives[consumer.request]
    end_consumer(store, consumer)


def withdraw(store: Store, connection: Connection, request: int) -> int:
    """End the receive, consume, result or read of this number; give back its answer. What the reply rests on.

    A number that means nothing here (it was withdrawn before, or never used) changes nothing.
    """
    receive = connection.receives.get(request)
    if receive is not None:
        end_receive(store, connection, receive)
    asked = connection.asked.get(request)
    if asked is not None:
        forget(store, asked)
    store.retained.withdrawn(store, connection.id, request)
    consumer = connection.opened.get(request)
    if consumer is not None:
        return cancel_consumer(store, connection, consumer)
    delivery = store.deliveries.get(connection.session.received.get(request, 0))
    # What ended it (an earlier withdrawal, its lease, a purge) may not be safe yet.
    return connection.session.back_batch if delivery is None else _put_back(store, delivery)


def reuse(store: Store, connection: Connection, request: int) -> None:
    """Let go what a number was used for before: there is nothing to withdraw under it any more.

    On its own connection its answer came. A receive asked again on a new one never got it: see `ask_again`.
    """
    connection.opened.pop(request, None)
    token = connection.session.received.get(request)
    delivery = store.deliveries.get(token) if token is not None else None
    if delivery is not None and delivery.connection == connection.id:
        connection.session.has_answer(delivery)


def ask_again(store: Store, session: Session, request: int) -> int:
    """Put back what a receive was answered with on an older connection; return what its next answer rests on.

    With that answer the client uses the number no more: if a crash then lost that the first one had gone back, it
    would be begun for nobody.
    """
    delivery = store.deliveries.get(session.received[request])
    return 0 if delivery is None else _put_back(store, delivery)


def _put_back(store: Store, delivery: Delivery) -> int:
    """Put what is left of an answer back to its place, uncharged; return what the reply rests on."""
    queue = store.queue_of(delivery)
    if queue is None:
        return 0
    singles = list(delivery.singles.values())
    delivery.alone.clear()
    for message in singles:
        message.ended_token, message.started_unix_ms = delivery.token, 0
        store.write_return(queue, [message], 0, None)
        wait(store, queue.group, message, delivery)
    if not delivery:
        drop_delivery(store, queue, delivery)
    return queue.last_batch
