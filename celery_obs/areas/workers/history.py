"""
What is remembered of workers: whether they lived, how busy they were, and their memory.
"""

from celery_obs.exporter.history.declared import Remembered

from .metrics import INFO, POOL_BUSY, POOL_SIZE, PROCESS_RESTARTS, RESERVED, RESIDENT_MEMORY, UP


REMEMBERED = (
    Remembered(metric=UP, fold="min"),
    Remembered(metric=POOL_SIZE),
    Remembered(metric=POOL_BUSY, fold="max"),
    Remembered(metric=RESERVED, fold="max"),
    Remembered(metric=RESIDENT_MEMORY, by=("worker",), fold="max"),
    Remembered(metric=PROCESS_RESTARTS, by=("worker",), skips_zeros=True),
    Remembered(metric=INFO, among="max"),
)
