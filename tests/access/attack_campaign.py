"""`make attacks`: each attack COUNT times, with and without TLS; pings of another client: p99 below 20 ms.

Attacker, pinging client and broker share one machine, which has to do nothing else. Each line says for how long
the broker ran, and for how long it was ready and had no processor: what pings wait for that is not its doing.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from time import monotonic

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS), str(TESTS / "access")]

from attacked import allow_everything, attacked  # noqa: E402
from attacks import ATTACKS  # noqa: E402

from support.broker import BrokerServer  # noqa: E402
from support.certificates import Authority  # noqa: E402

MOST_MS = 20.0


def scheduled_s(pid: int) -> tuple[float, float]:
    """Return for how long the main thread of a process has run, and waited for a processor."""
    ran_ns, waited_ns, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(ran_ns) / 1e9, int(waited_ns) / 1e9


def main(count: int) -> int:
    """Run all; return the exit code."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="minibroker-attacks-") as folder:
        place = Path(folder)
        authority = Authority(place / "ca")
        cert, key = authority.sign("server", "IP:127.0.0.1", "DNS:localhost")
        for sealed in (False, True):
            data = place / f"data-{sealed}"
            token = allow_everything(data)
            flags = ("--tls-cert", str(cert), "--tls-key", str(key)) if sealed else ()
            server = BrokerServer(data, "--no-http", *flags)
            try:
                scheme = "minibrokers" if sealed else "minibroker"
                url = f"{scheme}://:{token}@{server.host}:{server.port}"
                for name in ATTACKS:
                    began, before = monotonic(), scheduled_s(server.pid)
                    refused, pings = attacked(
                        server, name, count, url, MINIBROKER_CA=str(authority.cert)
                    )
                    ran_s, waited_s = (
                        after - one
                        for one, after in zip(before, scheduled_s(server.pid), strict=True)
                    )
                    good = refused == count and pings["p99"] <= MOST_MS
                    failed += not good
                    print(
                        f"{'TLS' if sealed else 'plain':5} {name:13} {refused} of {count} refused in "
                        f"{monotonic() - began:5.1f} s; {pings['count']} pings: p50 {pings['p50']:.2f} ms, "
                        f"p99 {pings['p99']:.2f} ms, max {pings['max']:.2f} ms; "
                        f"the broker ran {ran_s:.1f} s and waited {waited_s:.1f} s{'' if good else '  FAILED'}",
                        flush=True,
                    )
            finally:
                server.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
