"""A Flask application as the guide has it: a lazy broker for the module, made before gunicorn forks."""

from __future__ import annotations

import os
import socket

from flask import Flask

import minibroker
import minibroker.sync

TIMEOUT_S = float(os.environ["STORY_TIMEOUT_S"])
broker = minibroker.sync.connect(lazy=True, timeout=TIMEOUT_S)
mails, photos = broker.queue("mails"), broker.queue("photos")
app = Flask(__name__)


def open_sockets() -> int:
    """Return how many sockets this process has that are connected over TCP."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as found:
                found.getpeername()
                count += found.family != socket.AF_UNIX
        except OSError:
            continue
    return count


assert open_sockets() == 0, "importing the application has connected"


@app.post("/<int:number>")
def publish(number: int) -> str:
    """Publish the work of a request; every third one is for processes."""
    queue = photos if number % 3 == 0 else mails
    return f"{queue.name} {queue.publish({'number': number}).id}"


@app.errorhandler(minibroker.MinibrokerError)
def not_now(error: minibroker.MinibrokerError) -> tuple[str, int]:
    """Tell the client that it may try again."""
    return f"{error.code}: {error}", 503
