"""Where Celery keeps results, as `result_backend` says it: encrypted, with a token, and at one broker alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

celery = pytest.importorskip("celery", reason="the extra celery is not installed")

import minibroker  # noqa: E402
import minibroker.contrib.celery  # noqa: E402
from support.broker import StartBroker  # noqa: E402
from support.certificates import Authority  # noqa: E402
from support.processes import look_until  # noqa: E402


def app_with(url: str, **options: Any) -> Any:
    """Return an application whose results are there."""
    minibroker.contrib.celery.register()
    app = celery.Celery("kept", broker="memory://", backend=url, set_as_current=False)
    app.conf.result_backend_transport_options = options
    return app


def test_results_are_encrypted_and_say_their_token(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    """As minibrokers://, CA and token in the options, or it as password; a wrong one is why no answer comes."""
    authority = Authority(tmp_path)
    cert, key = authority.sign("server", "IP:127.0.0.1")
    server = start_broker("--tls-cert", str(cert), "--tls-key", str(key))
    command = [sys.executable, "-m", "minibrokerd", "token", "add", "shop"]
    command += ["--queues", "celery-*", "--may", "publish,consume,manage"]
    command += ["--data-dir", str(server.data_dir)]
    token = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]
    look_until(lambda: "tokens_loaded" in server.output, server.process, "the token")
    where, ca = f"127.0.0.1:{server.port}", str(authority.cert)
    with_password = app_with(f"minibrokers://:{token}@{where}", ca=ca)
    with_password.backend.mark_as_done("t", 1)
    with_option = app_with(f"minibrokers://{where}", ca=ca, token=token)
    assert with_option.AsyncResult("t").get(timeout=30) == 1
    refused = app_with(f"minibrokers://:wrong@{where}", ca=ca, timeout=1)
    with pytest.raises(minibroker.Timeout, match="token is not known"):
        refused.backend.get_state("t")
    for app in (with_password, with_option, refused):
        app.backend.close()


def test_several_brokers_are_refused() -> None:
    """Who waits at one of them would not hear of what is stored at the other."""
    app = app_with("minibroker://localhost:7272;minibroker://localhost:7273")
    with pytest.raises(celery.exceptions.ImproperlyConfigured, match="one broker"):
        app.backend.get_state("t")
