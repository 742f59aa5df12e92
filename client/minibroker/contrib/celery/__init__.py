"""minibroker as the broker of Celery, by one line: `broker_url = "minibroker://localhost:7272"`.

Where the package is installed, kombu knows the scheme by itself (scheme.py); elsewhere, as in a source tree on
the path, importing this module tells it. docs/guide/celery.md is for users, docs/decisions/0070 says what is
hard to change.
"""

from minibroker.contrib.celery.scheme import register

register()

__all__ = ["register"]
