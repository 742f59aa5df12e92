"""The pictures of the page, of a real broker at work: `make screenshots`, or `python docs/screenshots.py FOLDER`.

Writes docs/page.png, which README.md shows; with a folder, every page there: light, dark, and as wide as a phone.
It needs Chromium and Playwright's client (`pip install -e '.[browser]'`).
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from playwright.async_api import async_playwright

import minibroker

TARGET: Final = Path(__file__).resolve().with_name("page.png")
WATCHED_S: Final = 60.0  # how long the page is open before the picture: its charts are of that time
DESKTOP: Final = {"width": 1_180, "height": 810}
PHONE: Final = {"width": 390, "height": 844}
TOKEN: Final = "the token of the screenshots"
# A queue: messages a second, seconds of work, how many work at once, how many of 1,000 fail.
QUEUES: Final = {
    "emails.welcome": (40, 0.02, 8, 5),
    "emails.digest": (25, 0.05, 4, 0),
    "images.resize": (12, 0.30, 4, 20),
    "invoices.pdf": (5, 0.40, 2, 60),
    "search.index": (60, 0.01, 4, 0),
    "webhooks.deliver": (30, 0.12, 3, 40),
}
ERRORS: Final = (
    ConnectionError("connection to hooks.example.com:443 refused"),
    TimeoutError("no answer within 5 s"),
    ValueError("the template has no field 'total'"),
    RuntimeError("HTTP 502 from hooks.example.com"),
)


@contextmanager
def broker(folder: Path) -> Iterator[tuple[str, str]]:
    """Run a broker; yield where its clients and where browsers reach it."""
    flags = ["--data-dir", str(folder), "--port", "0", "--http", "127.0.0.1:0"]
    environment = {**os.environ, "MINIBROKER_HTTP_TOKEN": TOKEN, "MINIBROKER_NO_HTTP": "0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "minibrokerd", "serve", *flags, "--segment-bytes", "4M"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        text = process.stdout.readline() + process.stdout.readline()
        found = re.search(r"listening on (\S+)\n +http +(\S+)", text)
        assert found, text
        yield f"minibroker://{found[1]}", found[2]
    finally:
        process.terminate()
        process.wait()


async def produce(url: str, name: str, rate: float) -> None:
    """Publish for ever, sometimes faster."""
    chance = random.Random(name)
    async with minibroker.connect(url, name=f"web-{name.partition('.')[0]}") as connection:
        queue, number = connection.queue(name), 0
        await queue.set(max_attempts=2, retry_delay_ms=500)
        while True:
            burst = 1 + round(rate / 4 * chance.uniform(0.6, 1.4))
            for _ in range(burst):
                number += 1
                await queue.publish({"customer": number, "lang": chance.choice(["de", "en"])})
            await asyncio.sleep(burst / rate)


async def consume(url: str, name: str, work_s: float, workers: int, failing: int) -> None:
    """Work for ever."""
    chance = random.Random(f"{name} {workers}")

    async def handle(message: minibroker.Message) -> None:
        await asyncio.sleep(work_s * chance.uniform(0.5, 1.5))
        if chance.randrange(1_000) < failing:
            error = chance.choice(ERRORS)
            await (message.reject if chance.random() < 0.5 else message.nack)(error)

    async with minibroker.connect(url, name=f"worker-{name.partition('.')[0]}") as connection:
        await connection.queue(name).run(handle, concurrency=workers)


async def delay(url: str) -> None:
    """Have some messages wait for tomorrow."""
    async with minibroker.connect(url, name="web-invoices") as connection:
        for number in range(36):
            await connection.queue("invoices.pdf").publish({"customer": number}, delay=86_400)


async def take(url: str, address: str, folder: Path | None) -> None:
    """Open the page, wait while its charts fill, and take the pictures."""
    work: set[asyncio.Task[None]] = set()
    for name, (rate, work_s, workers, failing) in QUEUES.items():
        work.add(asyncio.create_task(produce(url, name, rate)))
        work.add(asyncio.create_task(consume(url, name, work_s, workers, failing)))
    await delay(url)
    async with async_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = await browser.new_context(
            base_url=address, viewport=DESKTOP, color_scheme="light", device_scale_factor=1
        )
        page = await context.new_page()
        await page.goto("/sign-in")
        await page.get_by_label("Token").fill(TOKEN)
        await page.get_by_label("Token").press("Enter")
        await page.goto("/?dlqs=0")
        await page.wait_for_timeout(WATCHED_S * 1_000)
        await page.screenshot(path=TARGET)
        if folder is not None:
            await take_all(page, folder)
        await browser.close()
    for task in work:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)


async def take_all(page: Any, folder: Path) -> None:
    """Take every page, in light and dark, and as on a phone."""
    await page.goto("/queues/webhooks.deliver.dlq")
    message = await page.locator("#list tbody a").first.get_attribute("href")
    await page.goto("/clients")
    client = await page.locator("tbody th a").first.get_attribute("href")
    paths = {
        "queues": "/",
        "queue": "/queues/webhooks.deliver",
        "dlq": "/queues/webhooks.deliver.dlq",
        "errors": "/queues/webhooks.deliver.dlq/errors",
        "message": message,
        "clients": "/clients",
        "client": client,
        "log": "/log",
        "events": "/events",
        "sign-in": "/sign-in",
    }
    for size, viewport in (("wide", DESKTOP), ("phone", PHONE)):
        await page.set_viewport_size(viewport)
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            for name, path in paths.items():
                await page.goto(path)
                await page.wait_for_timeout(4_500 if "queue" in name else 500)
                await page.screenshot(path=folder / f"{name}-{size}-{scheme}.png", full_page=True)


def main() -> None:
    """Take them."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data, broker(Path(data)) as (url, address):
        asyncio.run(take(url, address, folder))


if __name__ == "__main__":
    main()
