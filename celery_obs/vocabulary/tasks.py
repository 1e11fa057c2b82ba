"""
The former place of the events of tasks: `celery_obs.areas.tasks.events`.
"""

from __future__ import annotations

import warnings

from typing import Any

from celery_obs.areas.tasks import events


def __getattr__(name: str) -> Any:
    """
    Return an event from where it is now.
    """
    found = getattr(events, name)
    message = "celery_obs.vocabulary.tasks is deprecated: import events from celery_obs.areas.tasks.events."
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return found
