"""The application for `INSTALLED_APPS`: it brings the command `minibroker_worker`."""

from __future__ import annotations

from django.apps import AppConfig


class MinibrokerConfig(AppConfig):
    """It has no models, and nothing to migrate."""

    name = "minibroker.contrib.django"
    label = "minibroker"
    verbose_name = "minibroker"
