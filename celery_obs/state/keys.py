"""
The names of our keys in Redis, each with what it holds and who removes it.
"""

from __future__ import annotations

from typing import Final


__all__ = ["QUEUES", "QUEUES_TTL"]


QUEUES: Final = "celery_obs:queues"
"""
A hash: queue name to announcement.  Workers write it when they start to consume; it goes by itself when none did for :data:`QUEUES_TTL`.
"""

QUEUES_TTL: Final = 30 * 24 * 3600
"""
Seconds for which the announced queues outlive the last worker.
"""
