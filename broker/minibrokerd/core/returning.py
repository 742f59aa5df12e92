"""After a start: which sessions can come back, and how long what they had is held back for them.

A session is remembered while it has leases, or outcomes that may be asked for. After an unclean start everything
is held back for a moment, for what was begun just before the crash may be in no record. After a stop in good order
only what a client began behind the server's last read is not known: hand-outs wait for the sessions that were
there just before, if any of them consumed, and go on as soon as all of them are back.
"""

from __future__ import annotations

from minibroker.contract import limits
from minibrokerd.core.model.kept import ENDED
from minibrokerd.core.model.sessions import Session
from minibrokerd.core.model.state import Store
from minibrokerd.core.verbs.farewells import await_return


def finish_sessions(store: Store) -> None:
    """Keep the sessions of a replay that have something to remember, for as long as if they had gone just now."""
    for session in list(store.sessions.values()):
        # Its age by the wall clock counts for nothing: that may have been set, and a client that was away for
        # a second would be told that its publish is new.
        session.seen_ms = store.now_ms
        session.put_in_order()
        if session.is_worth_keeping:
            store.sums.outcomes += len(session.window)
            if session.window:
                oldest = min(outcome.recorded for outcome in session.window.values())
                store.note_outcomes(session, oldest)
            store.kept.forget(ENDED, (session.id,))
            await_return(store, session)
        else:
            del store.sessions[session.id]


def hold_back(store: Store, *, clean: bool) -> None:
    """Hand nothing out before those who were there could come back."""
    if clean:
        since_unix_ms = store.unix_ms - limits.SESSION_KEPT_MS
        recent = [each for each in store.sessions.values() if each.seen_unix_ms > since_unix_ms]
        if any(map(_consumed, recent)):  # what the others did before their last frame is not known
            store.expected = {session.id for session in recent}
    if store.expected or not clean:
        store.hold_until_ms = store.now_ms + limits.RESUME_WAIT_MS


def _consumed(session: Session) -> bool:
    outcomes = session.window.values()
    return bool(session.deliveries) or any("lost" in outcome.results[0] for outcome in outcomes)
