"""
What is remembered of calls to channels: how many were answered, how many failed, and why.
"""

from celery_obs.exporter.history.declared import Remembered

from .metrics import ERRORS, REQUESTS


REMEMBERED = (
    Remembered(metric=REQUESTS, by=("channel_type",), skips_zeros=True),
    Remembered(metric=ERRORS, skips_zeros=True),
)
