"""What the settings of a queue change beside what is asked of them each time: one function for all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minibrokerd.core.model import key_settings
from minibrokerd.core.model.ageing import arrange_wait
from minibrokerd.core.model.circuits import arrange_circuit
from minibrokerd.core.model.key_times import arrange_key_times
from minibrokerd.core.model.single import arrange_single

if TYPE_CHECKING:
    from minibrokerd.core.model.queues import Queue
    from minibrokerd.core.model.state import Store


def arrange(store: Store, queue: Queue) -> None:
    """Have a queue do what its settings say: it is new, they are others, or a start found it."""
    key_settings.arrange(store, queue)
    arrange_wait(store, queue)
    arrange_circuit(store, queue)
    arrange_key_times(store, queue)
    arrange_single(store, queue)
    store.retained.arrange(store, queue)
