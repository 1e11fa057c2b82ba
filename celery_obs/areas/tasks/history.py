"""
What is remembered of tasks: how many, how they end, how long they take and wait, what runs, and what they use.
"""

from celery_obs.exporter.history.declared import Remembered

from .metrics import CPU, FINISHED, IN_PROGRESS, LONGEST_RUNNING, PUBLISHED, QUEUE_WAIT, RUNTIME, STARTED


REMEMBERED = (
    Remembered(metric=FINISHED, by=("task", "state"), skips_zeros=True, weight=8),
    Remembered(metric=STARTED, by=("task", "queue"), skips_zeros=True, weight=4),
    Remembered(metric=RUNTIME, by=("task",), skips_zeros=True, weight=4),
    Remembered(metric=IN_PROGRESS, fold="max", skips_zeros=True, weight=4),
    Remembered(metric=LONGEST_RUNNING, fold="max", skips_zeros=True, weight=2),
    Remembered(metric=CPU, skips_zeros=True, weight=4),
    Remembered(metric=PUBLISHED, by=("queue",), skips_zeros=True),
    Remembered(metric=QUEUE_WAIT, by=("queue",), skips_zeros=True),
)
