"""
Alerts about the schedule: beat has stopped, an entry is late, or its task does not succeed.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.promql import gauge, least, most
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import amount, seconds
from celery_obs.vocabulary.conditions import BEAT_ENTRY_NOT_SUCCEEDING, BEAT_ENTRY_OVERDUE, BEAT_STOPPED, LEAST_SINCE_SUCCESS

from .metrics import ENTRY_DUE, ENTRY_LAST_FIRED, ENTRY_OVERDUE, HEARTBEAT, SUCCEEDED_ENTRY


__all__ = ["ALERTS"]


_PERIOD = f"({most(gauge(ENTRY_DUE), 'entry')} - {most(gauge(ENTRY_LAST_FIRED), 'entry')})"
_SINCE_SUCCESS = f"time() - {most(gauge(SUCCEEDED_ENTRY), 'entry')}"

ALERTS: Final = (
    Alert(
        name="CeleryBeatStopped",
        severity=BEAT_STOPPED.severity,
        # Beat may sleep for five minutes.  Its last beat of the last hours counts, so that a beat that is gone altogether is told, too.
        when=f"time() - max(last_over_time({gauge(HEARTBEAT)}[6h])) > $threshold",
        threshold=seconds(BEAT_STOPPED.threshold),
        lasts=BEAT_STOPPED.lasts,
        summary="Beat has stopped",
        description="Beat last ran its schedule {{ $value | humanizeDuration }} ago (threshold: $threshold). No periodic task is started: no token is refreshed, no drift is found.",
        shows="celery-beat",
    ),
    Alert(
        name="CeleryBeatEntryOverdue",
        severity=BEAT_ENTRY_OVERDUE.severity,
        # The least, for where a beat on another machine took over, the exporter beside the old one still tells what that one left undone.
        when=f"{least(gauge(ENTRY_OVERDUE), 'entry')} > $threshold",
        threshold=seconds(BEAT_ENTRY_OVERDUE.threshold),
        lasts=BEAT_ENTRY_OVERDUE.lasts,
        by=("entry",),
        summary="Schedule entry {{ $labels.entry }} is overdue",
        description="{{ $labels.entry }} was due {{ $value | humanizeDuration }} ago, and beat has not fired it (threshold: $threshold).",
        shows="celery-beat",
    ),
    Alert(
        name="CeleryBeatEntryNotSucceeding",
        severity=BEAT_ENTRY_NOT_SUCCEEDING.severity,
        when=f"{_SINCE_SUCCESS} > $threshold * {_PERIOD}\nand\n{_SINCE_SUCCESS} > {LEAST_SINCE_SUCCESS}",
        threshold=amount(BEAT_ENTRY_NOT_SUCCEEDING.threshold),
        lasts=BEAT_ENTRY_NOT_SUCCEEDING.lasts,
        by=("entry",),
        summary="Schedule entry {{ $labels.entry }} is fired and does not succeed",
        description="The task of {{ $labels.entry }} last succeeded {{ $value | humanizeDuration }} ago, more than $threshold of its periods.",
        shows="celery-beat",
    ),
    Alert(
        name="CeleryBeatEntryNeverSucceeded",
        severity="warning",
        when=f"max by (entry) (changes({gauge(ENTRY_LAST_FIRED)}[1d])) >= $threshold\nunless\n{most(gauge(SUCCEEDED_ENTRY), 'entry')}",
        threshold=amount(3),
        lasts="30m",
        by=("entry",),
        summary="Schedule entry {{ $labels.entry }} is fired and has never succeeded",
        description="Beat keeps firing {{ $labels.entry }}, and its task has not succeeded on any worker.",
        shows="celery-beat",
    ),
)
