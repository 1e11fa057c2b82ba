"""
What we assume of structlog holds on the version that is installed.
"""

from __future__ import annotations

import contextvars

from structlog.contextvars import get_contextvars

from celery_obs.compat import structlog as compat


def test_setting_a_variable_binds_its_name() -> None:
    """
    What is set in a variable is what structlog puts into lines, and looking for variables binds nothing.
    """

    def look() -> None:
        """
        Set one of two.
        """
        task, queue = compat.variables_of(("compat_task", "compat_queue"))
        assert get_contextvars() == {}
        task.set("sell")
        assert get_contextvars() == {"compat_task": "sell"}
        assert [each.name for each in (task, queue)] == [f"{compat.PREFIX}compat_task", f"{compat.PREFIX}compat_queue"]

    contextvars.Context().run(look)
