"""
What is remembered of queues: how much waits, how long, and who listens.
"""

from celery_obs.exporter.history.declared import Remembered

from .metrics import CONSUMERS, DEPTH, OLDEST_MESSAGE_AGE


REMEMBERED = (
    Remembered(metric=DEPTH, fold="max", weight=2),
    Remembered(metric=OLDEST_MESSAGE_AGE, among="max", fold="max", weight=2),
    Remembered(metric=CONSUMERS, fold="min", weight=2),
)
