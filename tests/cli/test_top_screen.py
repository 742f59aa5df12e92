"""The screen of `minibroker top`, stepped with looks, keys and sizes; no terminal and no broker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from minibroker.contract.metrics import METRICS
from minibroker.contract.settings import default_settings
from minibrokerd.cli.layout import width_of
from minibrokerd.cli.top_detail import Detail, detail_lines
from minibrokerd.cli.top_keys import HELP
from minibrokerd.cli.top_lines import Letters, Line, Style
from minibrokerd.cli.top_numbers import Look, Seen, rate
from minibrokerd.cli.top_screen import Screen, Wish

ZEROS = dict.fromkeys(METRICS, 0)
OVERVIEW: Mapping[str, Any] = {
    "version": "0.1.0",
    "phase": "ready",
    "recovered_percent": 100,
    "now_unix_ms": 0,
    "started_unix_ms": 0,
    "connections": 3,
    "memory_bytes": 1 << 20,
    "resident_bytes": 5 << 20,
    "memory_limit_bytes": 512 << 20,
    "log": {"disk_bytes": 64 << 20, "free_bytes": -1, "lacks_space": False, "sync_p99_ms": 1.25},
}


def seen(at_ms: int, **counts: int) -> Seen:
    """Return a queue as it was seen."""
    return Seen(at_ms, False, 61_500, {**ZEROS, **counts}, 250, 2_500)


def look(at_ms: int, queues: Mapping[str, Seen]) -> Look:
    """Return a look at these queues."""
    return Look({**OVERVIEW, "now_unix_ms": at_ms, "queues": len(queues)}, queues)


def screen_of(first: Look, *, filter: str = "", sort: str = "ready") -> Screen:
    """Return a screen that has seen one look."""
    return Screen(first, filter=filter, sort=sort, reverse=False)


def texts(screen: Screen, width: int = 100, height: int = 20, now_s: float = 0.0) -> list[str]:
    """Return what is to be seen, without the spaces at the ends of lines."""
    return [line.text.rstrip() for line in screen.lines(width, height, now_s)]


def names(screen: Screen, width: int = 100, height: int = 20) -> list[str]:
    """Return the queues that are to be seen, in their order."""
    lines = [line.text for line in screen.lines(width, height, 0.0)]
    head = next(at for at, line in enumerate(lines) if line.startswith("queue"))
    return [line.split()[0] for line in lines[head + 1 : -1] if line]


def chosen(screen: Screen, height: int = 20) -> str:
    """Return the queue that the cursor is at; it must be on the screen."""
    (line,) = [each for each in screen.lines(100, height, 0.0) if each.style is Style.CHOSEN]
    return line.text.split()[0]


def busy(at_ms: int, published: int) -> Look:
    """Return a look at two queues, one with a long name."""
    counts = {"ready": 1_234_567, "published": published}
    return look(at_ms, {name: seen(at_ms, **counts) for name in ("mail", "東京" * 20)})


ALL = "queue readyv begun held delayed consumers in/s done/s failed/s dead/s oldest wait run"


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        (40, "queue readyv begun in/s"),
        (60, "queue readyv begun consumers in/s done/s"),
        (100, "queue readyv begun held consumers in/s done/s failed/s dead/s oldest wait run"),
        (200, ALL),
    ],
)
def test_what_matters_least_goes_first(width: int, heads: str) -> None:
    """No line is wider than the terminal; a name that is cut says so."""
    screen = screen_of(busy(1_000, 500))
    screen.take(busy(3_000, 700))
    *above, head, mail, long = [line for line in texts(screen, width)[:-1] if line]
    assert head.split() == heads.split()
    assert mail.split()[:2] == ["mail", "1,234,567"]
    assert mail.split()[heads.split().index("in/s")] == "100"
    assert ("..." in long) == (width < 200)
    times = [mail.split()[heads.split().index(name)] for name in ("wait", "run") if name in heads]
    assert times == ["250ms", "2.5s"][: len(times)]
    assert "in 200/s" in "  ".join(above)


def test_any_size_gets_what_fits() -> None:
    """From one cell to 200 columns: no line too many, none too wide, and the last cell of all stays free."""
    screen = screen_of(busy(1_000, 500))
    screen.fail("AWAY", "nobody answers", 0.0)
    for width in (1, 5, 12, 39, 40, 80, 200):
        for height in (1, 2, 3, 4, 8, 40):
            lines = screen.lines(width, height, 5.0)
            assert len(lines) == height
            assert max(width_of(line.text) for line in lines) <= width
            assert width == 1 or width_of(lines[-1].text) < width


def test_rates_are_of_counters_that_may_begin_anew() -> None:
    """After a restart they count from zero, and no rate is negative; what was seen once has none."""
    assert rate("acked", seen(0, acked=100), seen(2_000, acked=6)) == 3
    screen = screen_of(look(0, {"mail": seen(0, published=100)}), sort="published")
    assert "in -/s" in "".join(texts(screen))
    both = {"mail": seen(10_000, published=102), "new": seen(10_000, published=50)}
    screen.take(look(10_000, both))
    mail, new = [line.split() for line in texts(screen, 200) if line.startswith(("mail", "new"))]
    assert (mail[6], new[6]) == ("0.2", "-")  # and the one that is known stands first


def three(at_ms: int = 0, **ready: int) -> Look:
    """Return a look at three queues with so many ready messages."""
    counts = {"a": 1, "b": 2, "c": 3, **ready}
    return look(at_ms, {name: seen(at_ms, ready=count) for name, count in counts.items()})


def test_keys_sort_and_turn_the_order_round() -> None:
    """By the column to the right or left, largest first, names from a to z; `r` turns it round."""
    screen = screen_of(three())
    assert names(screen) == ["c", "b", "a"]
    screen.press("r")
    assert names(screen) == ["a", "b", "c"]
    screen.press("<")
    assert (screen.sort, names(screen)) == ("queue", ["c", "b", "a"])
    screen.press("r")
    assert names(screen) == ["a", "b", "c"]
    screen.press("left")
    assert (screen.sort, "runv" in "".join(texts(screen, 40))) == ("run", True)
    screen.press("right")
    screen.press(">")
    assert screen.sort == "ready"


def test_the_cursor_stays_at_its_queue() -> None:
    """Whatever the order becomes, on the screen too; at the first row it stays there."""
    screen = screen_of(three())
    screen.take(three(a=9))
    assert chosen(screen) == "a"
    screen.press("down")
    assert chosen(screen) == "c"
    screen.take(three(c=0))
    assert (names(screen), chosen(screen)) == (["b", "a", "c"], "c")
    assert chosen(screen, height=6) == "c"
    assert names(screen, height=6) == ["a", "c"]
    screen.press("home")
    assert chosen(screen, height=6) == "b"
    screen.press("page_down")  # of two rows
    assert chosen(screen, height=6) == "c"
    screen.press("up")
    assert chosen(screen, height=6) == "a"
    screen.press("end")
    assert chosen(screen, height=6) == "c"


def test_a_filter_narrows_as_it_is_typed() -> None:
    """Enter keeps it, for the next look too; Escape brings back what was, then drops it, then ends."""
    screen = screen_of(look(0, dict.fromkeys(("mail", "news", "male"), seen(0))))
    for key in "/mailx":
        assert screen.press(key) is Wish.NOTHING
    assert texts(screen)[-1] == "/mailx_"
    assert "no queue fits 'mailx'" in texts(screen)
    screen.press("backspace")
    assert names(screen) == ["mail"]
    screen.press("escape")
    assert names(screen) == ["mail", "male", "news"]
    for key in "/*a?l*":
        screen.press(key)
    assert (screen.press("enter"), screen.filter) == (Wish.LOOK, "*a?l*")
    assert names(screen) == ["mail"]
    assert "1 of 3 queues" in "".join(texts(screen))
    assert (screen.press("escape"), names(screen)) == (Wish.LOOK, ["mail", "male", "news"])
    assert screen.press("escape") is Wish.END
    assert screen.press("q") is Wish.END


def test_nobody_there_is_said_until_somebody_is() -> None:
    """With what was seen last, and for how long; an answer that takes its time, too."""
    screen = screen_of(three())
    screen.fail("AWAY", "refused\x1b", 100.0)
    screen.fail("AWAY", "refused\x1b", 101.0)
    assert texts(screen, now_s=107.2)[0] == "AWAY for 7s: refused\\x1b"
    assert names(screen) == ["c", "b", "a"]
    screen.take(three(c=0))
    assert "AWAY" not in texts(screen)[0]
    assert screen.lines(100, 20, 10.0, 5.0)[0] == Line("no answer for 5s", Style.ALARM)
    assert screen.lines(100, 20, 10.0, 9.0)[0].style is Style.PLAIN


def test_a_broker_that_reads_its_log_has_no_queues_yet() -> None:
    """It says so, and how far it is."""
    reads = {**OVERVIEW, "phase": "recovering", "recovered_percent": 40, "queues": 0}
    screen = screen_of(Look(reads, {}), filter="mail")
    assert "recovering 40 %" in texts(screen)[0]
    assert "it reads its log, and has no queues until that is done" in texts(screen)
    assert screen.press("enter") is Wish.NOTHING


def test_paused_is_said_and_ends_with_a_look() -> None:
    """Also by a filter, which asks for something else."""
    screen = screen_of(three())
    assert (screen.press("p"), screen.paused) == (Wish.NOTHING, True)
    assert "PAUSED" in "".join(texts(screen))
    assert (screen.press("p"), screen.paused) == (Wish.LOOK, False)
    for key in ("p", "/", "enter"):
        screen.press(key)
    assert not screen.paused


def test_messages_in_dead_letter_queues_are_counted_apart() -> None:
    """`ready` is what consumers have to do."""
    counts = {**ZEROS, "ready": 5}
    queues = {"mail": Seen(0, False, 0, counts), "mail.dlq": Seen(0, True, 0, counts)}
    screen = screen_of(look(0, queues))
    assert "ready 5  begun 0" in "".join(texts(screen))
    assert "dead 5" in "".join(texts(screen))


def detail(at_ms: int, acked: int, *holders: Mapping[str, Any], overview: Any = OVERVIEW) -> Detail:
    """Return what a broker says of the queue `c`."""
    view = {
        "is_dlq": False,
        "oldest_ready_ms": 61_500,
        "counts": {**ZEROS, "ready": 5, "acked": acked},
        "settings": {**default_settings(), "lease_ms": 90_000},
        "dlq": "c.dlq",
        "live_bytes": 1_234,
        "paused": True,
        "resumes_unix_ms": 763_000,
        "circuit": {
            "state": "open",
            "why": "4 of 4 attempts failed",
            "since_unix_ms": 637_000,
            "until_unix_ms": 763_000,
        },
        "key_circuits": {"open": 1_200, "failing": 3},
    }
    found = {"holders": list(holders), "total": len(holders)}
    shares = {"count": 9, "mean": 0.5, "p50": 0.25, "p95": 4.0, "p99": 61.0}
    times = {"waits": shares, "runs": shares, "consumers": 2, "idle": 0.125, "handlers": 1_200}
    return Detail({**overview, "now_unix_ms": 700_000}, "c", at_ms, view, found, times)


def holder(number: int) -> Mapping[str, Any]:
    """Return a client that has messages."""
    return {
        "session": number,
        "client": f"worker-{number}",
        "peer": "",
        "connected": False,
        "consumers": 1,
        "prefetch": 20,
        "held": 19,
        "begun": 1,
        "oldest_begun_unix_ms": 637_000,
        "oldest_begun_id": f"1-{number}",
    }


def test_one_queue_in_detail() -> None:
    """The one that the cursor is at, whatever the order becomes; what comes of another one is not shown."""
    screen = screen_of(three())
    assert (screen.press("enter"), screen.queue) == (Wish.LOOK, "c")
    assert "c" in texts(screen)
    screen.take(detail(0, 100, holder(7)))
    screen.take(three(c=0))
    screen.take(detail(10_000, 105, holder(7)))
    screen.take(Detail(OVERVIEW, "b", 10_000))
    lines = texts(screen)
    text = "\n".join(lines)
    assert "memory 5 of 512 MiB" in text  # resident, as the limit is
    assert "ready 5  begun 0  held 0  delayed 0  oldest 1m1s  1,234 bytes of the log" in text
    assert "PAUSED, goes on in 1m3s" in text
    assert "CIRCUIT open for 1m3s, one tried in 1m3s  4 of 4 attempts failed" in text
    assert "CIRCUITS of 1,200 keys open" in text
    waits = "p50 250ms, p95 4.0s, p99 1m1s"
    assert f"waits {waits}  runs {waits}  consumers idle 12%" in text
    assert "handlers wanted 1,200" in text
    assert "acked 105 (0.5/s)\nlease_ms=1m30s  dead letters in c.dlq\n\nclient" in text
    (line,) = [line for line in lines if line.startswith("worker-7  away")]
    assert line.split()[2:] == ["1", "20", "19", "1", "1m3s", "1-7"]
    assert (screen.press("escape"), screen.queue) == (Wish.LOOK, "")
    assert chosen(screen) == "c"


def test_a_queue_with_the_default_settings_says_so() -> None:
    """Settings that are not shown could be missing, or not known."""
    screen = screen_of(three())
    screen.press("enter")
    plain = detail(0, 100)
    assert plain.view is not None
    screen.take(replace(plain, view={**plain.view, "settings": default_settings()}))
    assert "settings as by default  dead letters in c.dlq" in texts(screen)


def test_the_detail_fits_any_terminal_and_is_scrolled() -> None:
    """Paused, it says so; it is left as the table is filtered: with a look."""
    screen = screen_of(three())
    screen.press("enter")
    screen.take(detail(0, 100, *map(holder, range(50))))
    for width in (1, 12, 40, 60, 100, 200):
        for height in (1, 3, 8, 40):
            lines = screen.lines(width, height, 0.0)
            assert (len(lines), max(width_of(each.text) for each in lines) <= width) == (
                height,
                True,
            )
    assert "worker-0 " in "".join(texts(screen))
    screen.press("end")
    assert "worker-49" in texts(screen)[-2]
    screen.press("page_up")
    assert "worker-49" not in "".join(texts(screen))
    screen.press("home")
    assert "worker-0 " in "".join(texts(screen))
    screen.press("p")
    assert "PAUSED" in texts(screen)
    assert (screen.press("enter"), screen.paused) == (Wish.LOOK, False)


def test_the_help_names_every_key() -> None:
    """On any terminal, scrolled where it does not fit; any other key ends it."""
    screen = screen_of(three())
    screen.press("?")
    for keys, meaning in HELP:
        assert any(line.startswith(keys) and meaning in line for line in texts(screen, 100, 40))
    assert len(texts(screen, 40, 8)) == 8
    screen.press("end")
    assert "has been ready" in "".join(texts(screen, 40, 8))
    screen.press("q")
    assert names(screen) == ["c", "b", "a"]


def test_letters_that_the_terminal_has_not_are_replaced() -> None:
    """By whoever knows it."""
    letters = Letters(clean=lambda text: text.encode("ascii", "backslashreplace").decode())
    screen = Screen(
        look(0, {"東": seen(0)}), filter="", sort="queue", reverse=False, letters=letters
    )
    assert names(screen) == ["\\u6771"]


def test_a_retained_log_and_a_group_in_detail() -> None:
    """What it has, and where it is; a group's lag."""
    shown = detail(0, 0)
    assert shown.view is not None
    has = {"first": 3, "stop": 9, "next": 10, "messages": 6, "bytes": 1_500, "groups": 2}
    for more, text in (
        ({"offsets": has}, "log of 6 messages, 1,500 bytes"),
        (
            {"group_of": {"log": "events", "position": 7, "lag": 1_003}},
            "at offset 7 of events, lag 1,003",
        ),
    ):
        seen = replace(shown, view={**shown.view, "offsets": None, "group_of": None, **more})
        lines = [line.text for line in detail_lines(seen, None, 400, Letters())]
        assert text in " ".join(lines)
