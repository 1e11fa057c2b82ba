"""
The dashboard of providers.
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.channels.api_calls import metrics as api_calls
from celery_obs.areas.channels.syncs import metrics as syncs
from celery_obs.areas.channels.webhooks import metrics as webhooks
from celery_obs.rules.dashboards.model import Dashboard, Panel, Query, Row
from celery_obs.rules.dashboards.parts import JOB, TO_PLATFORM
from celery_obs.rules.dashboards.queries import increase_of, per_minute, quantile_of, ratio_of

from .metrics import DATA_POINTS


__all__ = ["DASHBOARDS"]


DASHBOARDS: Final = (
    Dashboard(
        uid="exchange-providers",
        title="Providers",
        question="Do the measurements of all providers arrive?",
        rows=(
            Row(
                "Measurements",
                (
                    Panel(
                        kind="timeseries",
                        title="Measurements per minute",
                        question="Which provider sends nothing?",
                        queries=(Query(expr=per_minute(DATA_POINTS, "provider"), legend="{{provider}}"),),
                        unit="opm",
                    ),
                    Panel(
                        kind="timeseries",
                        title="Share of measurements that are refused",
                        question="Whose measurements can we not take?",
                        queries=(Query(expr=ratio_of(DATA_POINTS, "provider", of={"status": "refused"}), legend="{{provider}}"),),
                        unit="percentunit",
                        maximum=1,
                    ),
                ),
            ),
            Row(
                "Calls",
                (
                    Panel(
                        kind="timeseries",
                        title="Syncs that take longest, p95",
                        question="Which provider is slow?",
                        queries=(Query(expr=quantile_of(0.95, syncs.DURATION, "channel_type"), legend="{{channel_type}}"),),
                        unit="s",
                        links=(TO_PLATFORM,),
                    ),
                    Panel(
                        kind="timeseries",
                        title="Calls refused for the rate limit",
                        question="Whose rate limit do we meet?",
                        queries=(
                            Query(expr=per_minute(api_calls.ERRORS, "channel_type", error_type="rate_limit"), legend="{{channel_type}}"),
                        ),
                        unit="opm",
                        links=(TO_PLATFORM,),
                    ),
                    Panel(
                        kind="bargauge",
                        title="Errors of calls in the time shown",
                        question="What goes wrong at the providers?",
                        queries=(Query(expr=increase_of(api_calls.ERRORS, "error_type"), legend="{{error_type}}"),),
                    ),
                    Panel(
                        kind="timeseries",
                        title="Webhooks per minute, by provider",
                        question="Whose webhooks come?",
                        queries=(Query(expr=per_minute(webhooks.RECEIVED, "channel_type"), legend="{{channel_type}}"),),
                        unit="opm",
                        links=(TO_PLATFORM,),
                    ),
                ),
            ),
        ),
        variables=(JOB,),
        tags=("providers",),
    ),
)
