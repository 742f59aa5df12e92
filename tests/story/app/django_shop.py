"""A Django application in one module: a row in sqlite, and its message when the transaction has committed."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="of a test",
    ROOT_URLCONF="django_shop",
    LOGGING_CONFIG=None,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ["STORY_DATABASE"],
            "OPTIONS": {"timeout": 60, "transaction_mode": "IMMEDIATE"},
        }
    },
)
django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

import minibroker  # noqa: E402
import minibroker.sync  # noqa: E402

broker = minibroker.sync.connect(lazy=True, timeout=float(os.environ["STORY_TIMEOUT_S"]))
orders = broker.queue("orders")


def order(request: HttpRequest, number: int) -> HttpResponse:
    """Make a row; its message is published behind the commit."""
    confirms: list[Any] = []
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO placed (number) VALUES (%s)", [number])
        row = cursor.lastrowid
        transaction.on_commit(partial(publish, row, number, confirms))
    return HttpResponse(f"orders {confirms[0].id}")


def publish(row: int, number: int, confirms: list[Any]) -> None:
    """Publish the work of a row."""
    confirms.append(orders.publish({"row": row, "number": number}))


class NotNow:
    """Tells the client that it may try again."""

    def __init__(self, get_response: Any) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request."""
        answer: HttpResponse = self._get_response(request)
        return answer

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer for a broker that is away."""
        if isinstance(error, minibroker.MinibrokerError):
            return HttpResponse(f"{error.code}: {error}", status=503)
        return None


settings.MIDDLEWARE = ["django_shop.NotNow"]
urlpatterns = [path("<int:number>", order)]
application = get_wsgi_application()
