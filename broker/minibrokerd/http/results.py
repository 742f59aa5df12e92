"""The API of results: what a message came to, as JSON."""

from __future__ import annotations

from minibroker.contract.errors import MessageFailed, Timeout
from minibroker.contract.reasons import ENDED
from minibroker.session.result_wish import Progress
from minibrokerd.http.requests import Ask
from minibrokerd.http.shapes import ResultView
from minibrokerd.text.values import plain

MOST_WAIT_S = 60


async def show_result(ask: Ask) -> ResultView:
    """Return what a message came to; `wait`: for so many seconds."""
    wait_s = ask.number("wait", 0, MOST_WAIT_S)
    told: list[Progress] = []
    view = ResultView(str(ask.id()), "none")
    try:
        found = await ask.client.queue(ask.queue_name).result(
            ask.id(), wait=wait_s, on_progress=told.append, timeout=wait_s + 10
        )
    except MessageFailed as error:
        view.state = error.state.lower()
        view.error_class, view.error_text = error.error_class, error.error_text
    except Timeout:
        if told:
            view.progress, view.note = told[-1]
        why = await ask.client.queue(ask.queue_name).explain(ask.id())
        if why.state == ENDED:
            view.state, view.reason, view.says = "ended", why.reason, why.says
    else:
        view.state, view.result = "done", plain(found)
    return view
