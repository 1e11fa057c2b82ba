"""
Django's backend.
"""

from __future__ import annotations

import contextlib

from typing import Any

from django.db.backends.sqlite3 import base


class DatabaseWrapper(base.DatabaseWrapper):  # type: ignore[misc]  # Django has no types.
    """
    SQLite with a connection that may be dead; its own says that it never is.
    """

    def is_usable(self) -> bool:
        """
        Ask, as PostgreSQL's does.
        """
        try:
            self.connection.execute("SELECT 1")
        except base.Database.Error:
            return False
        return True

    def _close(self) -> Any:
        with contextlib.suppress(base.Database.Error):
            return super()._close()
        return None
