"""
The message headers that we add: how one process tells another what only it can know.

All are top-level headers of a protocol 2 message, JSON-safe, and may come from anybody: read them as one reads a stranger's letter.
"""

from __future__ import annotations

from typing import Final


__all__ = ["DUE", "ENTRY", "PUBLISHED"]


PUBLISHED: Final = "celery_obs_published"
"""
When this message was published, in seconds since the epoch.  Written anew for each retry.
"""

DUE: Final = "celery_obs_due"
"""
When the task's first attempt was due (published, or its ETA where that is later), in seconds since the epoch.  Kept through retries.
"""

ENTRY: Final = "celery_obs_entry"
"""
Name of the beat schedule's entry that published the task.
"""
