"""
Alerts about the surroundings: the application's API, its database, cache and containers.

They read what the application or other exporters expose (celery_obs/rules/third_party), and are silent where neither does.
"""

from __future__ import annotations

from typing import Final

from .promql import Match, count_of, gauge, increase, max_by, quantile, rate, ratio, sum_by
from .rules import Alert
from .third_party import (
    CONTAINER_LIMIT,
    CONTAINER_MEMORY,
    HTTP_DURATION,
    HTTP_REQUESTS,
    PG_UP,
    POOL_IN_USE,
    POOL_SIZE,
    REDIS_HITS,
    REDIS_MEMORY,
    REDIS_MEMORY_MAX,
    REDIS_MISSES,
    UP,
)
from .thresholds import part, seconds


__all__ = ["ALERTS"]


_REQUESTS = sum_by(increase(HTTP_REQUESTS, "5m"), "job")
_API = gauge(UP, job=Match("=~", "(.+-)?(api|web|app)"))
_POD = ("namespace", "pod", "container")
_HITS, _MISSES = rate(REDIS_HITS, "15m"), rate(REDIS_MISSES, "15m")

ALERTS: Final = (
    Alert(
        name="HighApiErrorRate",
        severity="critical",
        expr=f"{ratio(sum_by(increase(HTTP_REQUESTS, '5m', status_code=Match('=~', '5..')), 'job'), _REQUESTS)}\n> $threshold\nand\n{_REQUESTS} >= $min_events",
        threshold=part(0.05),
        min_events=20,
        for_="5m",
        by=("job",),
        summary="API error rate above $threshold",
        description="{{ $value | humanizePercentage }} of the requests to {{ $labels.job }} were answered with 5xx in the last 5 minutes.",
        dashboard="celery-obs-infrastructure",
    ),
    Alert(
        name="APIUnavailable",
        severity="critical",
        # One that has left service discovery has no series at all; that there was one yesterday tells it from a job that never was.
        expr=f"{max_by(_API, 'job')} == 0\nor\n(0 * max by (job) (max_over_time({_API}[1d]))\nunless\n{max_by(_API, 'job')})",
        for_="2m",
        by=("job",),
        summary="API service is down",
        description="No target of {{ $labels.job }} has answered Prometheus for $for.",
        dashboard="celery-obs-infrastructure",
    ),
    Alert(
        name="ApiLatencyHigh",
        severity="warning",
        expr=f"{quantile(0.95, HTTP_DURATION, '5m', 'job')} > $threshold\nand\n300 * {sum_by(count_of(HTTP_DURATION, '5m'), 'job')} >= $min_events",
        threshold=seconds(0.3, below=HTTP_DURATION.buckets[-1]),
        min_events=20,
        for_="5m",
        by=("job",),
        summary="The API is slow",
        description="One request in twenty to {{ $labels.job }} takes longer than {{ $value | humanizeDuration }} (threshold: $threshold).",
        dashboard="celery-obs-infrastructure",
    ),
    Alert(
        name="DatabaseConnectionPoolExhausted",
        severity="critical",
        expr=f"{max_by(gauge(POOL_IN_USE), 'job', 'instance')}\n/\n({max_by(gauge(POOL_SIZE), 'job', 'instance')} > 0)\n> $threshold",
        threshold=part(0.95),
        for_="5m",
        by=("job", "instance"),
        summary="Database connection pool nearly exhausted",
        description="{{ $labels.instance }} uses {{ $value | humanizePercentage }} of its database connections (threshold: $threshold).",
        dashboard="celery-obs-infrastructure",
    ),
    Alert(
        name="DatabaseDown",
        severity="critical",
        expr=f"{max_by(gauge(PG_UP), 'instance')} == 0",
        for_="2m",
        by=("instance",),
        summary="The database does not answer",
        description="The database behind {{ $labels.instance }} has not answered for $for.",
        dashboard="celery-obs-infrastructure",
    ),
    Alert(
        name="CacheHitRatioLow",
        severity="warning",
        expr=f"{ratio(sum_by(_HITS, 'instance'), f'(sum by (instance) ({_HITS}) + sum by (instance) ({_MISSES}))')}\n< $threshold\nand\n900 * (sum by (instance) ({_HITS}) + sum by (instance) ({_MISSES})) >= $min_events",
        threshold=part(0.7),
        min_events=1000,
        for_="15m",
        by=("instance",),
        summary="Redis cache hit ratio is low",
        description="Redis at {{ $labels.instance }} answered {{ $value | humanizePercentage }} of lookups from its cache (threshold: $threshold).",
        dashboard="celery-obs-infrastructure",
    ),
    Alert(
        name="RedisMemoryHigh",
        severity="warning",
        expr=f"{max_by(gauge(REDIS_MEMORY), 'instance')}\n/\n({max_by(gauge(REDIS_MEMORY_MAX), 'instance')} > 0)\n> $threshold",
        threshold=part(0.8),
        for_="10m",
        by=("instance",),
        summary="Redis is nearly out of memory",
        description="Redis at {{ $labels.instance }} uses {{ $value | humanizePercentage }} of its memory (threshold: $threshold).",
        dashboard="celery-obs-infrastructure",
    ),
    Alert(
        name="HighMemoryUsage",
        severity="warning",
        expr=f"{max_by(gauge(CONTAINER_MEMORY), *_POD)}\n/\n({max_by(gauge(CONTAINER_LIMIT), *_POD)} > 0)\n> $threshold",
        threshold=part(0.8),
        for_="10m",
        by=_POD,
        summary="Container {{ $labels.container }} is nearly out of memory",
        description="{{ $labels.container }} in {{ $labels.pod }} uses {{ $value | humanizePercentage }} of its memory (threshold: $threshold).",
        dashboard="celery-obs-infrastructure",
    ),
)
