"""Bugs in what is begun as it is handed out, to a handler that waits (protocol.md, 5.3): on both sides."""

from __future__ import annotations

from typing import Final

from mutant import CLIENT, Mutant

ATTEMPTS: Final = "core/verbs/attempts.py"
CORE: Final = "core/core.py"
DISPATCHING: Final = "core/verbs/dispatching.py"
WORD: Final = (
    "    waits, connection.waits = connection.waits, None  # whatever comes uses the word up\n"
)
LOGINS: Final = "core/verbs/logins.py"
SUBSCRIPTION: Final = "session/subscription.py"
HANDED: Final = "core/test_core_handed.py"
BY_CLIENT: Final = ("client/test_handed.py",)

HANDED_MUTANTS: Final = (
    Mutant(
        "a resume gives nothing back that its client never saw",
        LOGINS,
        "    if delivery is None or not delivery.handed or delivery.connection == connection:\n",
        "    if delivery is None or not delivery.handed or delivery.connection <= connection:\n",
        ("sim", "model"),
        "H1: what was lost with its connection waits for its lease, and is charged",
    ),
    Mutant(
        "a resume charges what its client never saw",
        LOGINS,
        "            not_begun(store, queue, message)\n",
        "            message.attempts = (0, 0, message.attempts[2] + 1)\n"
        "            not_begun(store, queue, message)\n",
        ("model", "sim"),
        "H1: an attempt is counted that no handler made",
    ),
    Mutant(
        "a resume that names a part gives the rest back",
        LOGINS,
        "    if names_all:\n",
        "    if names_all or known:\n",
        (HANDED, "model"),
        "4.3: what more than a login frame can name is handed out while its handlers run",
    ),
    Mutant(
        "what nobody waited for is charged as it goes back",
        ATTEMPTS,
        "    message.started_unix_ms = 0\n    store.write_return(queue, [message], delay_ms, None)\n",
        "    message.started_unix_ms = 0\n"
        "    message.attempts = (0, 0, message.attempts[2] + 1)\n"
        "    store.write_return(queue, [message], delay_ms, None)\n",
        ("sim", "model"),
        "H1: an attempt is counted that no handler made",
    ),
    Mutant(
        "what nobody waited for is released as if somebody had seen it",
        "core/verbs/settling.py",
        "            if not (recalled and delivery.handed):  # else no handler saw it\n",
        "            if delivery.handed or not recalled:\n",
        ("model", HANDED),
        "5.3: it comes again a second later, from the second time on",
    ),
    Mutant(
        "a word that a handler waits is good for ever",
        DISPATCHING,
        WORD,
        "    waits = connection.waits\n",
        ("model", "sim"),
        "H3: what waits in a buffer is begun, and charged to a worker that dies",
    ),
    Mutant(
        "several at once do not use up the word that a handler waits",
        DISPATCHING,
        WORD,
        "    waits, connection.waits = connection.waits, connection.waits if count > 1 else None\n",
        ("model", HANDED),
        "5.3: the next one is begun while its client works on those",
    ),
    Mutant(
        "what comes for others does not use up the word that a handler waits",
        DISPATCHING,
        WORD,
        "    waits = connection.waits\n"
        "    if waits is consumer:\n"
        "        connection.waits = None\n",
        ("model", "sim", HANDED),
        "5.3: a handler holds up the loop that is to read what is begun for another one",
    ),
    Mutant(
        "what is ready already is begun for a handler that waits",
        ATTEMPTS,
        "        consumer = None\n    connection.waits = consumer\n",
        "        assert connection.main\n    connection.waits = consumer\n",
        ("model", HANDED),
        "5.3: of a backlog each message has two records",
    ),
    Mutant(
        "what is said to be begun has no lease",
        ATTEMPTS,
        "    begin_messages(store, queue, messages)\n    return True\n",
        "    return bool(messages)\n",
        ("model", "sim"),
        "I5: what a dead worker had is never handed out again",
    ),
    Mutant(
        "a marked message is begun for a handler that waits",
        ATTEMPTS,
        "    if messages[0].marked:\n",
        "    if messages[0].marked and not store.connections:\n",
        ("model", "sim"),
        "5.3: what may kill its handler is begun beside others",
    ),
    Mutant(
        "what has a short lease is begun for a handler that waits",
        ATTEMPTS,
        "    if count != 1 or delivery.lease_ms < LEAST_LEASE_MS:\n",
        "    if count != 1 or delivery.lease_ms < LEAST_LEASE_MS // 10:\n",
        ("model", HANDED),
        "5.3: a lease ends while its delivery waits for a slow sync",
    ),
    Mutant(
        "a frame that comes twice says again that a handler waits",
        CORE,
        "            _sequenced(store, connection, frame, frame.sequence)\n            return\n",
        "            _sequenced(store, connection, frame, frame.sequence)\n"
        "            if frame.waits is not None:\n"
        "                note_waits(store, connection, frame.waits)\n"
        "            return\n",
        ("model", HANDED),
        "H3: what comes next is begun for nobody",
    ),
    Mutant(
        "a frame that is refused says that a handler waits",
        CORE,
        "            _sequenced(store, connection, frame, frame.sequence)\n            return\n",
        "            if frame.waits is not None and frame.sequence not in connection.session.window:\n"
        "                note_waits(store, connection, frame.waits)\n"
        "            _sequenced(store, connection, frame, frame.sequence)\n"
        "            return\n",
        ("model", HANDED),
        "5.3: sent again it says it twice",
    ),
    Mutant(
        "what was begun for nobody lies about in its client",
        SUBSCRIPTION,
        "                delivery.give_back()\n                return False\n",
        "                return False\n",
        ("sim", *BY_CLIENT),
        "H4: its lease ends, and is charged",
        package=CLIENT,
    ),
    Mutant(
        "who was told of a message goes without a word",
        SUBSCRIPTION,
        "            return self.give_back_handed()\n",
        "            return bool(self._ended)\n",
        BY_CLIENT,
        "5.3: it is begun for nobody until somebody comes back",
        package=CLIENT,
    ),
    Mutant(
        "a consumer ends with what was begun for it",
        "session/machine.py",
        "        consumer.give_back_handed()\n        consumer.drop_buffer()\n",
        "        consumer.drop_buffer()\n",
        ("client/test_machine_model.py",),
        "H4: its lease ends, and is charged",
        package=CLIENT,
    ),
    Mutant(
        "a client that has begun too much to name does not say so",
        "session/settle_frames.py",
        "    return runs if latest is messages else [NOT_ALL, *runs]\n",
        "    return runs\n",
        BY_CLIENT,
        "4.3: what its handlers work on is handed out to others",
        package=CLIENT,
    ),
    Mutant(
        "who closes does not wait for what is on its way",
        "session/leaving.py",
        '        return bool(self.retired) or self._session.requests.is_written("cancel")\n',
        "        return bool(self.retired)\n",
        BY_CLIENT,
        "5.3: it is begun for a handler that never sees it, and waits for its lease",
        package=CLIENT,
    ),
)
