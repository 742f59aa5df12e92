"""The broker as the HTTP port sees it: all that may be looked at, and what the port itself adds when it opens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from minibrokerd.monitoring.view import View

if TYPE_CHECKING:
    from minibrokerd.http.near import Clients
    from minibrokerd.http.recent import Recent
    from minibrokerd.http.survey import Survey
    from minibrokerd.http.talkers import Talkers
    from minibrokerd.monitoring.caller import Caller
    from minibrokerd.monitoring.watch import Watch


@dataclass(slots=True)
class Subject(View):
    """One broker with its watch, its webhook, and what is kept for the port."""

    watch: Watch | None = None
    caller: Caller | None = None  # of the webhook
    clients: Clients | None = None
    survey: Survey | None = None
    recent: Recent | None = None
    talkers: Talkers | None = None
