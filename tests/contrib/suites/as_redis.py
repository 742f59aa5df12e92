"""A plugin of pytest for Celery's own tests: results in minibroker under a URL that begins with `redis`.

Half of its tests of canvases ask whether the result backend's URL begins so, and are skipped if not. Their
counters and echoes are in a Redis beside it all the same.
"""

from __future__ import annotations

from typing import Any

from celery.app.backends import BACKEND_ALIASES

from minibroker.contrib.celery.result_backend import MinibrokerBackend

SCHEME = "redis.minibroker"


class Backend(MinibrokerBackend):
    """The backend, by that scheme."""

    def __init__(self, app: Any, url: str, **kwargs: Any) -> None:
        super().__init__(app, url=url.replace(SCHEME, "minibroker", 1), **kwargs)


BACKEND_ALIASES[SCHEME] = "as_redis:Backend"
