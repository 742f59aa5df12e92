"""The page of dead tasks in Django's admin: who sees it, and who may do what there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django_project import PREPARED, SETTINGS, project
from libraries import Library

import minibroker.sync
from support.broker import BrokerServer

WITH_ADMIN = """
SECRET_KEY = "shop"
ROOT_URLCONF = "urls"
own = "auth", "contenttypes", "messages", "sessions", "admin"
INSTALLED_APPS += [f"django.contrib.{name}" for name in own]
between = "sessions.middleware.Session", "auth.middleware.Authentication", "messages.middleware.Message"
MIDDLEWARE = [f"django.contrib.{name}Middleware" for name in between]
MIDDLEWARE += ["django.middleware.csrf.CsrfViewMiddleware"]
names = "template.context_processors.request", "contrib.auth.context_processors.auth"
names += ("contrib.messages.context_processors.messages",)
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {"context_processors": [f"django.{name}" for name in names]},
}]
STATIC_URL = "static/"
ALLOWED_HOSTS = ["*"]
"""
URLS = """
from django.contrib import admin
from django.urls import path
urlpatterns = [path("admin/", admin.site.urls)]
"""
TASKS = """
@task
def bad(number):
    ran("bad", number)
    raise ValueError(f"no <b>{number}</b>")
"""
SEEN = """
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connection
from django.test import Client

call_command("migrate", verbosity=0)
call_command("dumpdata", "minibroker", use_base_manager=True, verbosity=0)
assert not [name for name in connection.introspection.table_names() if "minibroker" in name]
url = "/admin/minibroker/deadtask/"

def client(*may, staff=True, csrf=False):
    user = User.objects.create_user(f"user-{User.objects.count()}", is_staff=staff)
    user.user_permissions.set(Permission.objects.filter(codename__in=[f"{each}_deadtask" for each in may]))
    made = Client(enforce_csrf_checks=csrf)
    made.force_login(user)
    return made

def page(client, **words):
    answer = client.post(url, words, follow=True) if words else client.get(url)
    return answer.status_code, answer.content.decode()

def ids():
    import re
    return re.findall('name="ids" value="([0-9-]+)"', page(client("view"))[1])
"""
ASKED = """
for number in range(3):
    ended(bad.enqueue(number))
assert "/login/" in Client().get(url).headers["Location"]
assert "/login/" in client("view", staff=False).get(url).headers["Location"]
assert page(client())[0] == 403

until = time.monotonic() + 30
while len(ids()) < 3:  # what failed is said first, and then it is dead
    assert time.monotonic() < until
code, shown = page(client("view"))
assert code == 200 and "default: 3" in shown and "mails: 0" in shown
assert "<strong>tasks.bad</strong>(2)" in shown and "no &lt;b&gt;2&lt;/b&gt;" in shown
assert "<button" not in shown.partition('id="changelist"')[2]
first, second, third = ids()

for may, action in ("view", "redrive"), ("change", "delete"), ("delete", "redrive"), ("delete", "burn"):
    assert page(client("view", may), action=action, ids=[first])[0] == 403, (may, action)
assert page(client("view", "change", csrf=True), action="redrive", ids=[first])[0] == 403
assert len(ids()) == 3

_, shown = page(client("view", "change"), action="redrive")  # the broker takes none for all
assert "No task was chosen" in shown and len(ids()) == 3
_, shown = page(client("view", "delete"), action="delete", ids=[first, third])
assert "Are you sure?" in shown and len(ids()) == 3
_, shown = page(client("view", "delete"), action="delete", ids=[first, third], sure="yes")
assert "2 of 2 are deleted" in shown and ids() == [second]
assert page(client("view", "change"), action="redrive", ids=[second, "7-x"])[1].count("1 of 1 are sent")
assert page(client("view"))[0] == 200 and client("view").get(url + "?queue=nobody&after=z").status_code == 200
assert "Dead tasks" in Client.get(client("view"), "/admin/").content.decode()
"""
AWAY = """
from unittest.mock import patch
from minibroker.contract.errors import ConnectionLost
from minibroker.sync.queue import Queue

with patch.object(Queue, "stats", side_effect=ConnectionLost("it is away")):
    code, shown = page(client("view"))
assert code == 200 and "ConnectionLost: it is away" in shown
"""


@pytest.fixture
def shop(tmp_path: Path, broker_server: BrokerServer) -> Iterator[Library]:
    """A project with tasks and an admin; no worker is started."""
    (tmp_path / "urls.py").write_text(URLS)
    yield from project(tmp_path, broker_server, TASKS, SETTINGS + WITH_ADMIN)


def test_staff_may_look_at_dead_tasks_and_who_may_change_them_sends_them_back(
    shop: Library, broker_server: BrokerServer
) -> None:
    """A permission for each, none of it without a token against forgery; and no table in the database."""
    worker = shop.start()
    shop.call(PREPARED + SEEN + ASKED + AWAY)
    with minibroker.sync.connect(broker_server.url) as broker:
        broker.queue("default").join(timeout=60)
        [again] = broker.queue("default.dlq").peek()
    assert again.info["redriven"] == 1, worker
    assert shop.ran() == {"bad 0": 1, "bad 1": 2, "bad 2": 1}


POISON = """
until = time.monotonic() + 30
while "mails: 3" not in page(client("view"))[1]:
    assert time.monotonic() < until
answer = client("view").get(url + "?queue=mails")
assert answer.status_code == 200 and b"3 dead tasks" in answer.content, answer.content
"""


def test_whatever_is_dead_has_a_row(shop: Library, broker_server: BrokerServer) -> None:
    """Any program may publish: nesting without end, and text that no page can say."""
    with minibroker.sync.connect(broker_server.url) as broker:
        for body in (
            b"[" * 100_000,
            rb'{"task": "\ud800"}',
            rb'{"task": "a", "kwargs": {"\ud800": 1}}',
        ):
            broker.queue("mails").publish(body)
    shop.start()
    shop.call(PREPARED + SEEN + POISON)
