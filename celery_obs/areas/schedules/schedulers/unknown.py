"""
A scheduler that we do not know: what it fires is told, and nothing of what it should.
"""

from __future__ import annotations

import logging

from collections.abc import Collection
from typing import Any


__all__ = ["Adapter"]


class Adapter:
    """
    Say once what cannot be told of a scheduler.

    Args:
        scheduler: The scheduler.
    """

    def __init__(self, scheduler: Any) -> None:
        kind = type(scheduler)
        logging.getLogger("celery_obs").warning(
            "celery_obs: the scheduler %s.%s is unknown. Shown is when its entries were fired and last succeeded; when they are due and "
            "whether they are overdue is not shown. Known are Celery's own schedulers, django-celery-beat's and RedBeat's.",
            kind.__module__,
            kind.__qualname__,
        )

    def due(self, now: float, *, fired: Collection[str]) -> None:
        """
        Return None: the entries cannot be known.
        """
