"""The dead task as Django's admin knows it: a name for permissions and for a page. It has no table."""

from __future__ import annotations

from typing import Any

from django.db import models


class Nothing(models.Manager):
    """Finds nothing, and asks no database: `dumpdata` goes through all models."""

    def get_queryset(self) -> Any:
        """Return what is empty."""
        return super().get_queryset().none()


class DeadTask(models.Model):
    """A task in the dead-letter queue of its queue: who may view, redrive (change) and delete it."""

    id = models.CharField(primary_key=True, max_length=42)

    objects = Nothing()

    class Meta:
        """Nothing is made in a database but the permissions."""

        managed = False
        app_label = "minibroker"
        base_manager_name = "objects"
        default_permissions = "view", "change", "delete"
        verbose_name = "dead task"
