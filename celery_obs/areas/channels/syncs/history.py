"""
What is remembered of syncs: how they end, and how many run.
"""

from celery_obs.exporter.history.declared import Remembered

from .metrics import IN_PROGRESS, TOTAL


REMEMBERED = (
    Remembered(metric=TOTAL, by=("channel_type", "status"), skips_zeros=True),
    Remembered(metric=IN_PROGRESS, by=("channel_type",), fold="max", skips_zeros=True),
)
