"""What groups give back some time after they were used: see `Store.rest_later`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from minibrokerd.core.model.times import WINDOW_MS

if TYPE_CHECKING:
    from minibrokerd.core.model.group import Group
    from minibrokerd.core.model.state import Store
    from minibrokerd.core.model.wheel import Timer

REST_GROUPS: Final = 1_000  # looked at in one step


def rest(store: Store, timer: Timer, argument: None) -> None:
    """Let groups that have nothing give back what they do not need, and later what is known of their times."""
    idle, store.idle = store.idle, []
    timed: list[Group] = []

    def step() -> bool:
        for group in idle[-REST_GROUPS:]:
            group.idle = False
            group.rest()
            if group.times is not None and not group.times.leaves:
                group.times.leaves = True
                timed.append(group)
        del idle[-REST_GROUPS:]
        if timed and not idle:
            store.set_timer(_forget_times, timed, store.now_ms + 2 * WINDOW_MS)
        return not idle

    store.jobs.append(step)


def _forget_times(store: Store, timer: Timer, groups: list[Group]) -> None:
    """Give back the times of groups in which nothing was of late; look again at those that were used since."""
    used = []
    for group in groups:
        times = group.times
        if times is not None and times.is_over(store.now_ms):
            store.sums.timed.rest(group)
        elif times is not None and not times.leaves:
            times.leaves = True
            used.append(group)
    if used:
        store.set_timer(_forget_times, used, store.now_ms + 2 * WINDOW_MS)
