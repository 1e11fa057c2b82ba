"""
Alerts about the schedule: beat has stopped, an entry is late, or its task does not succeed.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.promql import gauge, max_by, min_by
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import amount, seconds
from celery_obs.vocabulary.conditions import BEAT_ENTRY_NOT_SUCCEEDING, BEAT_ENTRY_OVERDUE, BEAT_STOPPED, LEAST_SINCE_SUCCESS

from .metrics import ENTRY_DUE, ENTRY_LAST_FIRED, ENTRY_OVERDUE, HEARTBEAT, SUCCEEDED_ENTRY


__all__ = ["ALERTS"]


_PERIOD = f"({max_by(gauge(ENTRY_DUE), 'entry')} - {max_by(gauge(ENTRY_LAST_FIRED), 'entry')})"
_SINCE_SUCCESS = f"time() - {max_by(gauge(SUCCEEDED_ENTRY), 'entry')}"

ALERTS: Final = (
    Alert(
        name="CeleryBeatStopped",
        severity=BEAT_STOPPED.severity,
        # Beat may sleep for five minutes.  Its last beat of the last hours counts, so that a beat that is gone altogether is told, too.
        expr=f"time() - max(last_over_time({gauge(HEARTBEAT)}[6h])) > $threshold",
        threshold=seconds(BEAT_STOPPED.threshold),
        for_=BEAT_STOPPED.for_,
        summary="Beat has stopped",
        description="Beat last ran its schedule {{ $value | humanizeDuration }} ago (threshold: $threshold). No periodic task is started: no token is refreshed, no drift is found.",
        dashboard="celery-beat",
    ),
    Alert(
        name="CeleryBeatEntryOverdue",
        severity=BEAT_ENTRY_OVERDUE.severity,
        # The least, for where a beat on another machine took over, the exporter beside the old one still tells what that one left undone.
        expr=f"{min_by(gauge(ENTRY_OVERDUE), 'entry')} > $threshold",
        threshold=seconds(BEAT_ENTRY_OVERDUE.threshold),
        for_=BEAT_ENTRY_OVERDUE.for_,
        by=("entry",),
        summary="Schedule entry {{ $labels.entry }} is overdue",
        description="{{ $labels.entry }} was due {{ $value | humanizeDuration }} ago, and beat has not fired it (threshold: $threshold).",
        dashboard="celery-beat",
    ),
    Alert(
        name="CeleryBeatEntryNotSucceeding",
        severity=BEAT_ENTRY_NOT_SUCCEEDING.severity,
        expr=f"{_SINCE_SUCCESS} > $threshold * {_PERIOD}\nand\n{_SINCE_SUCCESS} > {LEAST_SINCE_SUCCESS}",
        threshold=amount(BEAT_ENTRY_NOT_SUCCEEDING.threshold),
        for_=BEAT_ENTRY_NOT_SUCCEEDING.for_,
        by=("entry",),
        summary="Schedule entry {{ $labels.entry }} is fired and does not succeed",
        description="The task of {{ $labels.entry }} last succeeded {{ $value | humanizeDuration }} ago, more than $threshold of its periods.",
        dashboard="celery-beat",
    ),
    Alert(
        name="CeleryBeatEntryNeverSucceeded",
        severity="warning",
        expr=f"max by (entry) (changes({gauge(ENTRY_LAST_FIRED)}[1d])) >= $threshold\nunless\n{max_by(gauge(SUCCEEDED_ENTRY), 'entry')}",
        threshold=amount(3),
        for_="30m",
        by=("entry",),
        summary="Schedule entry {{ $labels.entry }} is fired and has never succeeded",
        description="Beat keeps firing {{ $labels.entry }}, and its task has not succeeded on any worker.",
        dashboard="celery-beat",
    ),
)
