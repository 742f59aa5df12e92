"""How kombu comes to know `minibroker://` without an import in the application.

kombu has a table of transports by scheme, and no entry point for them. Of installed packages it loads one group
when it is imported, that of serializers. So this module is named there as one: a plain msgpack of what a body
here may be, as any application may use it; and that it is loaded puts the schemes into the table. It imports
nothing else of ours. Celery has entry points for result backends, and ours is one; the table is for a source tree.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

import msgpack

TRANSPORTS: Final = {
    "minibroker": "minibroker.contrib.celery.transport:Transport",
    "minibrokers": "minibroker.contrib.celery.transport:SealedTransport",
}
RESULTS: Final = "minibroker.contrib.celery.result_backend:MinibrokerBackend"
CONTENT_TYPE: Final = "application/x-minibroker-msgpack"


def register() -> None:
    """Tell kombu of the schemes minibroker:// and minibrokers://, and Celery where results are kept."""
    serialization = sys.modules.get("kombu.serialization")
    if serialization is None or hasattr(serialization, "prepare_accept_content"):
        # Else it is half imported, and this is loaded by its entry point.
        with suppress(ImportError):  # kombu alone is enough
            import_module("celery.app.backends")
    from kombu.transport import TRANSPORT_ALIASES

    TRANSPORT_ALIASES.update(TRANSPORTS)
    backends = sys.modules.get("celery.app.backends")
    if backends is not None:  # an installed package is found by its entry point
        backends.BACKEND_ALIASES.update(dict.fromkeys(TRANSPORTS, RESULTS))


def packed(value: Any) -> bytes:
    """Return a value as msgpack."""
    data: bytes = msgpack.packb(value)
    return data


def unpacked(data: bytes) -> Any:
    """Return the value that `packed` was given."""
    return msgpack.unpackb(data, strict_map_key=False)


SERIALIZER: Final = (packed, unpacked, CONTENT_TYPE, "binary")  # as kombu's `register` takes it
register()  # the last of all: it may import kombu, which then loads SERIALIZER out of here
