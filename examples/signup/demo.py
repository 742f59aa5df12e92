"""The signup story, with real parts and real kills. Run: make demo

Exit code 0: nothing was lost, and the last line says what happened; 1: a stage failed, and the text
says which one and where its logs are.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from ledger import Summary, served
from photo import PHOTO_SIZE, make_photo
from processes import Crew, DemoError
from queued import ThroughBroker
from scenes import InRequest, Script
from settings import Settings

OUT = Path(__file__).resolve().parent / "out"


def say(text: str) -> None:
    """Print a line of the story at once, also into a pipe."""
    print(text, flush=True)


async def play(crew: Crew, options: argparse.Namespace) -> Summary:
    """Run the whole story and return its figures.

    Raises:
        DemoError: a stage did not come to its end, or a promise did not hold.
    """
    photo = ready_photo(options.out)
    script = Script(options.signups, photo, options.request_pace, options.queued_pace, say)
    times = {"mail_seconds": options.mail_seconds, "lease_ms": options.lease_ms}

    say(f"\n2  In the request: {script.signups} signups, one every {options.request_pace:g} s")
    before = InRequest(crew, script, Settings(options.out / "request", mode="request", **times))
    await before.play()

    say(f"\n3  Through the broker: the same signups, one every {options.queued_pace:g} s")
    lease = options.lease_ms / 1_000
    say(f"   queues mails, avatars, analytics: durability sync, 5 attempts, a lease of {lease:g} s")
    say("   (the default is 30 s, but this story is in a hurry)")
    after = ThroughBroker(crew, script, Settings(options.out / "queued", mode="queued", **times))
    await after.play()
    return summary(before, after)


def summary(before: InRequest, after: ThroughBroker) -> Summary:
    """Check the run through the broker and put the figures together."""
    world, answered = after.check(), after.answered()
    return Summary(
        signups=len(answered),
        request_ms=before.median_ms(),
        queued_ms=after.median_ms(),
        mails=served(world.mails, answered),
        avatars=served(world.avatars, answered),
        dead_letters=after.dead_letters,
        redriven=after.redriven,
        worker_kills=after.worker_kills,
        broker_kills=after.broker_kills,
        lost=len(world.lost(answered)),
        duplicates=world.duplicates(),
    )


def ready_photo(out: Path) -> Path:
    """Return the path of the photo that everybody uploads; made once and kept."""
    path = out / "photo.jpg"
    if not path.exists():
        make_photo(path)
    megapixels = PHOTO_SIZE[0] * PHOTO_SIZE[1] / 1e6
    say(f"1  A photo of {megapixels:g} megapixels ({path.stat().st_size / 1e6:.1f} MB): {path}")
    return path


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; the defaults are the story."""
    parser = argparse.ArgumentParser(
        description="The signup story, in the request and through the broker."
    )
    parser.add_argument(
        "--signups", type=int, default=20, help="how many; at least 3 (%(default)s)"
    )
    parser.add_argument("--mail-seconds", type=float, default=2.0, help="one mail (%(default)s)")
    parser.add_argument(
        "--lease-ms", type=int, default=3_000, help="lease of the queues (%(default)s)"
    )
    parser.add_argument("--request-pace", type=float, default=0.65, help="seconds (%(default)s)")
    parser.add_argument("--queued-pace", type=float, default=0.25, help="seconds (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for all files (%(default)s)")
    options = parser.parse_args(arguments)
    if options.signups < 3:
        parser.error("--signups must be at least 3: the third visitor has the refused address")
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    return options


async def run(options: argparse.Namespace) -> None:
    """Play, with every child process stopped at the end, also after SIGTERM or Ctrl-C."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with Crew(options.out / "logs") as crew:
        # What the client library reports (a lost connection, a reconnect) would spoil the story.
        logging.basicConfig(filename=options.out / "logs" / "demo.log", level=logging.WARNING)
        figures = await play(crew, options)
    say(f"\n{figures}")


def reason(failure: Exception) -> DemoError:
    """Return the first DemoError of a failure; signups and kills run side by side, so there may be two.

    Raises:
        Exception: the failure itself, if it is not only of that kind: that is a bug.
    """
    if isinstance(failure, ExceptionGroup) and not failure.split(DemoError)[1]:
        return reason(failure.exceptions[0])
    if isinstance(failure, DemoError):
        return failure
    raise failure


def main() -> int:
    """Run the demo and return the exit code."""
    options = parse(sys.argv[1:])
    try:
        asyncio.run(run(options))
    except (DemoError, ExceptionGroup) as failure:
        print(f"\ndemo failed: {reason(failure)}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("\ndemo interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
