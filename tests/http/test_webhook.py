"""A webhook of a real broker: told of dead letters, changed at a hang-up, gone in time at a stop."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from http_broker import serving

from minibroker.sync import connect
from support.processes import look_until

SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


def receiver(seen: list[dict[str, object]], answer: int) -> HTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(answer)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


def test_dead_letters_are_told_and_a_hang_up_moves_the_webhook(tmp_path: Path) -> None:
    """The second receiver refuses: the stop does not wait for the next attempt. Nothing shows the secret."""
    file, secret = tmp_path / "minibroker.toml", tmp_path / "secret"
    secret.write_text(SECRET)
    seen: list[dict[str, object]] = []
    refused: list[dict[str, object]] = []
    well, ill = receiver(seen, 204), receiver(refused, 500)

    def point(port: int) -> None:
        file.write_text(f'webhook = "http://127.0.0.1:{port}/"\nwebhook-secret-file = "{secret}"\n')

    point(well.server_port)
    with serving(tmp_path / "data", "--config", str(file)) as broker:
        server = broker.server
        with connect(server.url) as client:
            queue = client.queue("jobs", max_attempts=1)
            queue.publish("x")
            (message,) = queue.receive(wait=10)
            message.reject("it broke", confirmed=True)

        # A loaded machine changes other checks as well, of syncs for instance: each call is looked for by name.
        def told(kind: str, **fields: object) -> list[dict[str, object]]:
            data = [each["data"] for each in tuple(seen) if each["type"] == kind]
            return [
                each for each in data if isinstance(each, dict) and fields.items() <= each.items()
            ]

        look_until(lambda: bool(told("dead_letters.new")), server.process, "the new dead letter")
        assert told("dead_letters.new") == [
            {"messages": 1, "queues": {"jobs": 1}, "more_queues": 0}
        ]
        look_until(
            lambda: bool(told("check.changed", check="dead-letters", before="ok", level="warning")),
            server.process,
            "the change of the check",
        )

        def counted() -> int:
            text = broker.client.get("/metrics").text
            (line,) = re.findall(
                r'^minibroker_webhook_calls_total{outcome="sent"} (\d+)', text, re.M
            )
            return int(line)

        look_until(lambda: counted() >= 2, server.process, "the counter")
        point(ill.server_port)
        server.process.send_signal(signal.SIGHUP)
        look_until(lambda: "changed=webhook" in server.output, server.process, "the reload")
        look_until(lambda: "webhook_failed" in server.output, server.process, "a failure")
        server.process.terminate()
        assert server.process.wait(60) == 0
        for thread in threading.enumerate():
            if "_drain" in thread.name:  # it reads what the broker printed, to its end
                thread.join(10)
        assert "webhook_dropped calls=" in server.output
        assert SECRET.removeprefix("whsec_") not in server.output
    for each in (well, ill):
        each.shutdown()
        each.server_close()


def test_a_check_of_the_configuration_covers_it(tmp_path: Path) -> None:
    secret, bad = tmp_path / "secret", tmp_path / "bad"
    secret.write_text(SECRET)
    bad.write_text("whsec_tooshort")

    def run(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "minibrokerd", *words]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        return ended.returncode, ended.stdout + ended.stderr

    check = ("serve", "--check-config", "--data-dir", str(tmp_path / "data"))
    fine = ("--webhook", "https://example.com/x", "--webhook-secret-file", str(secret))
    assert run(*check, *fine)[0] == 0
    code, said = run(*check, *fine[:2], "--webhook-secret-file", str(bad))
    assert (code, "24 to 64 bytes" in said, "tooshort" in said) == (2, True, False)
    assert "Error: --webhook-secret-file: " in said
    code, said = run(*check, "--webhook", "https://a:b@example.com", *fine[2:])
    assert (code, "Error: --webhook: " in said, "no name and password" in said) == (2, True, True)
    assert run(*check, *fine[:2])[0] == 2
    code, said = run("config", "--", *fine)
    assert (code, SECRET in said) == (0, False)
