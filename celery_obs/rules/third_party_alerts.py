"""
Alerts about the surroundings: the application's API, its database, cache and containers.

They read what the application or other exporters expose (celery_obs/rules/third_party), and are silent where neither does.
"""

from __future__ import annotations

from typing import Final

from .promql import Match, count_of, gauge, increase, most, quantile, rate, share, total
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


_REQUESTS = total(increase(HTTP_REQUESTS, "5m"), "job")
_API = gauge(UP, job=Match("=~", "(.+-)?(api|web|app)"))
_POD = ("namespace", "pod", "container")
_HITS, _MISSES = rate(REDIS_HITS, "15m"), rate(REDIS_MISSES, "15m")

ALERTS: Final = (
    Alert(
        name="HighApiErrorRate",
        severity="critical",
        when=f"{share(total(increase(HTTP_REQUESTS, '5m', status_code=Match('=~', '5..')), 'job'), _REQUESTS)}\n> $threshold\nand\n{_REQUESTS} >= $least_events",
        threshold=part(0.05),
        least_events=20,
        lasts="5m",
        by=("job",),
        summary="API error rate above $threshold",
        description="{{ $value | humanizePercentage }} of the requests to {{ $labels.job }} were answered with 5xx in the last 5 minutes.",
        shows="celery-obs-infrastructure",
    ),
    Alert(
        name="APIUnavailable",
        severity="critical",
        # One that has left service discovery has no series at all; that there was one yesterday tells it from a job that never was.
        when=f"{most(_API, 'job')} == 0\nor\n(0 * max by (job) (max_over_time({_API}[1d]))\nunless\n{most(_API, 'job')})",
        lasts="2m",
        by=("job",),
        summary="API service is down",
        description="No target of {{ $labels.job }} has answered Prometheus for $for.",
        shows="celery-obs-infrastructure",
    ),
    Alert(
        name="ApiLatencyHigh",
        severity="warning",
        when=f"{quantile(0.95, HTTP_DURATION, '5m', 'job')} > $threshold\nand\n300 * {total(count_of(HTTP_DURATION, '5m'), 'job')} >= $least_events",
        threshold=seconds(0.3, below=HTTP_DURATION.buckets[-1]),
        least_events=20,
        lasts="5m",
        by=("job",),
        summary="The API is slow",
        description="One request in twenty to {{ $labels.job }} takes longer than {{ $value | humanizeDuration }} (threshold: $threshold).",
        shows="celery-obs-infrastructure",
    ),
    Alert(
        name="DatabaseConnectionPoolExhausted",
        severity="critical",
        when=f"{most(gauge(POOL_IN_USE), 'job', 'instance')}\n/\n({most(gauge(POOL_SIZE), 'job', 'instance')} > 0)\n> $threshold",
        threshold=part(0.95),
        lasts="5m",
        by=("job", "instance"),
        summary="Database connection pool nearly exhausted",
        description="{{ $labels.instance }} uses {{ $value | humanizePercentage }} of its database connections (threshold: $threshold).",
        shows="celery-obs-infrastructure",
    ),
    Alert(
        name="DatabaseDown",
        severity="critical",
        when=f"{most(gauge(PG_UP), 'instance')} == 0",
        lasts="2m",
        by=("instance",),
        summary="The database does not answer",
        description="The database behind {{ $labels.instance }} has not answered for $for.",
        shows="celery-obs-infrastructure",
    ),
    Alert(
        name="CacheHitRatioLow",
        severity="warning",
        when=f"{share(total(_HITS, 'instance'), f'(sum by (instance) ({_HITS}) + sum by (instance) ({_MISSES}))')}\n< $threshold\nand\n900 * (sum by (instance) ({_HITS}) + sum by (instance) ({_MISSES})) >= $least_events",
        threshold=part(0.7),
        least_events=1000,
        lasts="15m",
        by=("instance",),
        summary="Redis cache hit ratio is low",
        description="Redis at {{ $labels.instance }} answered {{ $value | humanizePercentage }} of lookups from its cache (threshold: $threshold).",
        shows="celery-obs-infrastructure",
    ),
    Alert(
        name="RedisMemoryHigh",
        severity="warning",
        when=f"{most(gauge(REDIS_MEMORY), 'instance')}\n/\n({most(gauge(REDIS_MEMORY_MAX), 'instance')} > 0)\n> $threshold",
        threshold=part(0.8),
        lasts="10m",
        by=("instance",),
        summary="Redis is nearly out of memory",
        description="Redis at {{ $labels.instance }} uses {{ $value | humanizePercentage }} of its memory (threshold: $threshold).",
        shows="celery-obs-infrastructure",
    ),
    Alert(
        name="HighMemoryUsage",
        severity="warning",
        when=f"{most(gauge(CONTAINER_MEMORY), *_POD)}\n/\n({most(gauge(CONTAINER_LIMIT), *_POD)} > 0)\n> $threshold",
        threshold=part(0.8),
        lasts="10m",
        by=_POD,
        summary="Container {{ $labels.container }} is nearly out of memory",
        description="{{ $labels.container }} in {{ $labels.pod }} uses {{ $value | humanizePercentage }} of its memory (threshold: $threshold).",
        shows="celery-obs-infrastructure",
    ),
)
