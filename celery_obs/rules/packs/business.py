"""
What the business sees: are customers' data delivered, and on time?
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.channels.conflicts import metrics as conflicts
from celery_obs.areas.channels.connections import metrics as connections
from celery_obs.areas.channels.syncs import metrics as syncs
from celery_obs.areas.channels.webhooks import metrics as webhooks
from celery_obs.areas.sidecar import metrics as ourselves
from celery_obs.areas.tasks import metrics as tasks
from celery_obs.rules.dashboards.model import WIDTH, Dashboard, Panel, Query, Row, Step, Variable
from celery_obs.rules.dashboards.parts import JOB, TO_PLATFORM, TO_TASKS, higher_is_better
from celery_obs.rules.dashboards.queries import chosen, increase_of, max_of, per_minute, ratio_of, ratio_within, sum_of
from celery_obs.rules.promql import none_of, one_of
from celery_obs.rules.third_party import NEWSLETTERS


__all__ = ["BUSINESS"]


_TASK = chosen("task")
_ENDED = none_of("retry", "ignored")

_SUMMARY = Row(
    "Summary",
    (
        Panel(
            kind="stat",
            title="Delivered within 30 s",
            question="Which share of the chosen tasks was done within 30 seconds of being due? 95 % is the target for alerts.",
            queries=(Query(expr=ratio_within(tasks.LATENCY, 30.0, over="$__range", task=_TASK), legend="Within 30 s"),),
            unit="percentunit",
            steps=higher_is_better(0.9, 0.95),
            width=6,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Delivered at all",
            question="Which share of the chosen tasks succeeded? 99.5 % is the target for newsletters.",
            queries=(
                Query(expr=ratio_of(tasks.FINISHED, of={"state": "success"}, over="$__range", state=_ENDED, task=_TASK), legend="Success"),
            ),
            unit="percentunit",
            steps=higher_is_better(0.99, 0.995),
            width=6,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Records moved (24 h)",
            question="How many records were created or updated in the last 24 hours?",
            queries=(Query(expr=increase_of(syncs.RECORDS, over="24h", result=one_of("created", "updated")), legend="Records"),),
            width=6,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Double bookings (24 h)",
            question="How many double bookings were there? Rooms sold twice in the last 24 hours.",
            queries=(
                Query(
                    expr=f"{increase_of(conflicts.DOUBLE_BOOKINGS, over='24h')} or 0 * {sum_of(ourselves.BUILD_INFO)}",
                    legend="Double bookings",
                ),
            ),
            unit="none",
            decimals=0,
            steps=(Step(None, "green"), Step(1, "red")),
            width=6,
            height=4,
        ),
    ),
)

_DELIVERY = Row(
    "Delivery",
    (
        Panel(
            kind="timeseries",
            title="Delivered within 30 s, by task",
            question="Which task is late?",
            queries=(Query(expr=ratio_within(tasks.LATENCY, 30.0, "task", task=_TASK), legend="{{task}}"),),
            unit="percentunit",
            ascending=True,
            maximum=1,
            links=(TO_TASKS,),
        ),
        Panel(
            kind="timeseries",
            title="Delivered at all, by task",
            question="Which task does not succeed?",
            queries=(Query(expr=ratio_of(tasks.FINISHED, "task", of={"state": "success"}, state=_ENDED, task=_TASK), legend="{{task}}"),),
            unit="percentunit",
            ascending=True,
            maximum=1,
            links=(TO_TASKS,),
        ),
        Panel(
            kind="timeseries",
            title="Newsletters per minute by outcome",
            question="Do newsletters arrive? Counted by the application.",
            queries=(
                Query(
                    expr=per_minute(NEWSLETTERS, "status"),
                    legend="{{status}}",
                    absent_where=f"the application does not declare {NEWSLETTERS.name}",
                ),
            ),
            unit="opm",
            stacked=True,
            width=WIDTH,
            height=6,
        ),
    ),
)

_CUSTOMERS = Row(
    "Customers",
    (
        Panel(
            kind="timeseries",
            title="Active connections by channel",
            question="How many connections are active on each channel?",
            queries=(Query(expr=max_of(connections.TOTAL, "channel_type", status="active"), legend="{{channel_type}}"),),
            unit="none",
            stacked=True,
            links=(TO_PLATFORM,),
        ),
        Panel(
            kind="timeseries",
            title="Customers that left",
            question="How many connections have left each channel?",
            queries=(Query(expr=max_of(connections.TOTAL, "channel_type", status="disconnected"), legend="{{channel_type}}"),),
            unit="none",
            links=(TO_PLATFORM,),
        ),
        Panel(
            kind="bargauge",
            title="Events from channels (range)",
            question="What do channels send: bookings, cancellations, changes?",
            queries=(Query(expr=increase_of(webhooks.RECEIVED, "event_type"), legend="{{event_type}}"),),
            unit="none",
            decimals=0,
            minimum=0,
            width=8,
        ),
        Panel(
            kind="bargauge",
            title="Records moved (range)",
            question="Which syncs run for which channel?",
            queries=(
                Query(expr=increase_of(syncs.RECORDS, "channel_type", result=one_of("created", "updated")), legend="{{channel_type}}"),
            ),
            unit="none",
            decimals=0,
            minimum=0,
            width=8,
            links=(TO_PLATFORM,),
        ),
        Panel(
            kind="bargauge",
            title="Conflicts resolved (range)",
            question="Who was right?",
            queries=(
                Query(expr=increase_of(conflicts.RESOLVED, "conflict_type", "resolution"), legend="{{conflict_type}}: {{resolution}}"),
            ),
            unit="none",
            decimals=0,
            minimum=0,
            width=8,
        ),
        Panel(
            kind="timeseries",
            title="Double bookings in the last hour, by channel",
            question="Which channel sells rooms twice?",
            queries=(Query(expr=increase_of(conflicts.DOUBLE_BOOKINGS, "channel_type", over="1h"), legend="{{channel_type}}"),),
            unit="none",
            decimals=0,
            width=WIDTH,
            height=6,
            links=(TO_PLATFORM,),
        ),
    ),
)

BUSINESS: Final = Dashboard(
    uid="celery-obs-business",
    title="Business",
    question="Are customers' data delivered, and on time?",
    rows=(_SUMMARY, _DELIVERY, _CUSTOMERS),
    variables=(JOB, Variable("task", "Task", tasks.FINISHED.name)),
    tags=("business",),
    since="now-24h",
)
