"""
Beat and its schedule: what was fired, what succeeded, what is late?
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.dashboards.model import WIDTH, Dashboard, Panel, Query, Row, Step, Variable
from celery_obs.rules.dashboards.parts import JOB, higher_is_worse
from celery_obs.rules.dashboards.queries import age, chosen, max_of, min_of

from . import metrics as beat


__all__ = ["BEAT", "DASHBOARDS"]


_ENTRY = chosen("entry")

_SUMMARY = Row(
    "Summary",
    (
        Panel(
            kind="stat",
            title="Last pass of beat",
            question="Does beat still run its schedule?",
            queries=(Query(expr=age(beat.HEARTBEAT), legend="Ago"),),
            unit="s",
            steps=higher_is_worse(60, 300),
            width=8,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Entries overdue",
            question="How many entries are overdue by more than a minute?",
            queries=(Query(expr=f"sum ({min_of(beat.ENTRY_OVERDUE, 'entry', entry=_ENTRY)} > bool 60)", legend="Overdue"),),
            unit="none",
            steps=(Step(None, "green"), Step(1, "red")),
            width=8,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Entries in the schedule",
            question="How many entries does the schedule have?",
            queries=(Query(expr=f"count ({max_of(beat.ENTRY_DUE, 'entry', entry=_ENTRY)})", legend="Entries"),),
            unit="none",
            width=8,
            height=4,
        ),
    ),
)

_ENTRIES = Row(
    "Schedule",
    (
        Panel(
            kind="table",
            title="Entries",
            question="Which entry is overdue, and which never succeeds?",
            keys=(("entry", "Entry"),),
            queries=(
                Query(
                    expr=min_of(beat.ENTRY_OVERDUE, "entry", entry=_ENTRY),
                    legend="Overdue by",
                    unit="s",
                    steps=higher_is_worse(60, 300),
                ),
                Query(expr=age(beat.ENTRY_LAST_FIRED, "entry", entry=_ENTRY), legend="Last fired", unit="s"),
                Query(expr=age(beat.SUCCEEDED_ENTRY, "entry", entry=_ENTRY), legend="Last success", unit="s"),
                Query(
                    expr=f"clamp_min({max_of(beat.ENTRY_DUE, 'entry', entry=_ENTRY)} - time(), 0)",
                    legend="Next due in",
                    unit="s",
                ),
            ),
            sort_by="Overdue by",
            width=WIDTH,
        ),
        Panel(
            kind="timeseries",
            title="Overdue by",
            question="Since when is an entry overdue, and are all of them?",
            queries=(Query(expr=min_of(beat.ENTRY_OVERDUE, "entry", entry=_ENTRY), legend="{{entry}}"),),
            unit="s",
        ),
        Panel(
            kind="timeseries",
            title="Since the last success",
            question="Which entry does not succeed? Its line climbs beyond the entry's period.",
            queries=(Query(expr=age(beat.SUCCEEDED_ENTRY, "entry", entry=_ENTRY), legend="{{entry}}"),),
            unit="s",
        ),
    ),
)

BEAT: Final = Dashboard(
    uid="celery-beat",
    title="Celery Beat and Schedules",
    question="What was fired, what succeeded, and what is overdue?",
    rows=(_SUMMARY, _ENTRIES, Row("What the schedule is for", ())),
    variables=(JOB, Variable("entry", "Entry", beat.ENTRY_DUE.name)),
    tags=("celery",),
)

DASHBOARDS: Final = (BEAT,)
