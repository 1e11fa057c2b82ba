"""
The dashboard of the business hub: its requests, its syncs, and what it is integrated with, on one page.

It counts nothing of its own: what it shows are metrics of celery_obs and of the web application.
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.channels.api_calls import metrics as api_calls
from celery_obs.areas.channels.conflicts import metrics as conflicts
from celery_obs.areas.channels.syncs import metrics as syncs
from celery_obs.areas.channels.webhooks import metrics as webhooks
from celery_obs.areas.tasks import metrics as tasks
from celery_obs.rules.dashboards.model import Dashboard, Panel, Query, Row
from celery_obs.rules.dashboards.parts import JOB, TO_PLATFORM, TO_TASKS, higher_is_better
from celery_obs.rules.dashboards.queries import increase_of, per_minute, quantile_of, ratio_of, sum_of
from celery_obs.rules.promql import Match, none_of, one_of
from celery_obs.rules.third_party import HTTP_DURATION, HTTP_REQUESTS


__all__ = ["DASHBOARDS"]


_UNDECLARED: Final = "the application does not declare {}"
_ENDED: Final = one_of("success", "partial", "failure")
_SERVER_ERROR: Final = Match("=~", "5..")

_REQUESTS: Final = Row(
    "Requests",
    (
        Panel(
            kind="timeseries",
            title="Request latency",
            question="How long do people wait for the hub?",
            queries=tuple(
                Query(
                    expr=quantile_of(part, HTTP_DURATION),
                    legend=f"p{part * 100:.0f}",
                    absent_where=_UNDECLARED.format(HTTP_DURATION.name),
                )
                for part in (0.5, 0.95, 0.99)
            ),
            unit="s",
        ),
        Panel(
            kind="timeseries",
            title="Share of requests that fail",
            question="Does the hub answer?",
            queries=(
                Query(
                    expr=ratio_of(HTTP_REQUESTS, of={"status_code": _SERVER_ERROR}),
                    legend="Failed",
                    absent_where=_UNDECLARED.format(HTTP_REQUESTS.name),
                ),
            ),
            unit="percentunit",
            maximum=1,
        ),
    ),
)

_SYNCS: Final = Row(
    "Syncs",
    (
        Panel(
            kind="stat",
            title="Syncs that succeed",
            question="Which share of the syncs succeeds? 99.9 % is promised.",
            queries=(Query(expr=ratio_of(syncs.TOTAL, of={"status": "success"}, over="$__range", status=_ENDED), legend="Success"),),
            unit="percentunit",
            steps=higher_is_better(0.99, 0.999),
            width=6,
        ),
        Panel(
            kind="stat",
            title="Active syncs",
            question="How many syncs run now?",
            queries=(Query(expr=sum_of(syncs.IN_PROGRESS), legend="Running"),),
            width=6,
        ),
        Panel(
            kind="timeseries",
            title="Duration of a sync, p95",
            question="Which source is slow?",
            queries=(Query(expr=quantile_of(0.95, syncs.DURATION, "channel_type"), legend="{{channel_type}}"),),
            unit="s",
            links=(TO_PLATFORM,),
        ),
        Panel(
            kind="timeseries",
            title="Conflicts per minute",
            question="Do conflicts come faster than they are resolved?",
            queries=(
                Query(expr=per_minute(conflicts.DETECTED), legend="Detected"),
                Query(expr=per_minute(conflicts.RESOLVED), legend="Resolved"),
            ),
            unit="opm",
        ),
    ),
)

_INTEGRATIONS: Final = Row(
    "Integrations",
    (
        Panel(
            kind="timeseries",
            title="Calls that are answered",
            question="Which API is not available?",
            queries=(
                Query(
                    expr=ratio_of(api_calls.REQUESTS, "channel_type", of={"status_code": Match("=~", "[23]..")}), legend="{{channel_type}}"
                ),
            ),
            unit="percentunit",
            ascending=True,
            maximum=1,
            links=(TO_PLATFORM,),
        ),
        Panel(
            kind="timeseries",
            title="Webhooks that are processed",
            question="Whose webhooks do we fail to process?",
            queries=(
                Query(
                    expr=ratio_of(webhooks.PROCESSED, "channel_type", of={"status": none_of("error")}),
                    legend="{{channel_type}}",
                ),
            ),
            unit="percentunit",
            ascending=True,
            maximum=1,
            links=(TO_PLATFORM,),
        ),
        Panel(
            kind="bargauge",
            title="Retries in the time shown",
            question="Which task is tried again and again?",
            queries=(Query(expr=increase_of(tasks.RETRIES, "task"), legend="{{task}}"),),
            links=(TO_TASKS,),
        ),
    ),
)

DASHBOARDS: Final = (
    Dashboard(
        uid="business-hub",
        title="Business hub",
        question="Is the hub well, for people and for what it is integrated with?",
        rows=(_REQUESTS, _SYNCS, _INTEGRATIONS),
        variables=(JOB,),
        tags=("business",),
    ),
)
