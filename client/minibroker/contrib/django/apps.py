"""The application for `INSTALLED_APPS`: it brings the command `minibroker_worker`."""

from __future__ import annotations

from django.apps import AppConfig


class MinibrokerConfig(AppConfig):
    """It has no table, and nothing to migrate: the dead task of the admin is but a name."""

    name = "minibroker.contrib.django"
    label = "minibroker"
    verbose_name = "minibroker"
