"""
Trying again, as programs import it.
"""

from __future__ import annotations

from celery_obs.areas.channels.retries import PRESETS, Preset, RetrySchedule, retry_policy


__all__ = ["PRESETS", "Preset", "RetrySchedule", "retry_policy"]
