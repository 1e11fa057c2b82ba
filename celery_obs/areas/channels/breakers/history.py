"""
What is remembered of circuit breakers: their states, and what they rejected.
"""

from celery_obs.exporter.history.declared import Remembered

from .metrics import REJECTIONS, STATE


REMEMBERED = (
    Remembered(metric=STATE, among="max", fold="max"),
    Remembered(metric=REJECTIONS, skips_zeros=True),
)
