"""
What is remembered of schedules: by how much their entries were overdue.
"""

from celery_obs.exporter.history.declared import Remembered

from .metrics import ENTRY_OVERDUE


REMEMBERED = (Remembered(metric=ENTRY_OVERDUE, among="max", fold="max", skips_zeros=True),)
