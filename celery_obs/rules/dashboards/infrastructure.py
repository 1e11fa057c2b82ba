"""
Machines, Redis and the services we call: is it us, or what we stand on?
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.promql import Match
from celery_obs.rules.third_party import (
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
)
from celery_obs.vocabulary.spec import Metric

from .model import Dashboard, Panel, Query, Row, Step
from .parts import JOB, UP, higher_is_better, higher_is_worse
from .queries import increase_of, max_of, per_second, quantile_of, ratio_of, selector, sum_of
from .third_party import (
    NODE_CPU,
    NODE_DISK_FREE,
    NODE_DISK_SIZE,
    NODE_MEMORY_AVAILABLE,
    NODE_MEMORY_TOTAL,
    REDIS_CLIENTS,
    REDIS_EVICTED,
    REDIS_UP,
)


__all__ = ["INFRASTRUCTURE"]


def _undeclared(metric: Metric) -> str:
    return f"the application does not declare {metric.name}"


_REAL_DISKS = Match("!~", "tmpfs|overlay|squashfs|ramfs")

_MACHINES = Row(
    "Machines (node_exporter)",
    (
        Panel(
            kind="timeseries",
            title="Processors in use",
            question="Is a machine at its limit?",
            queries=(
                Query(
                    expr=f"1 - avg by (instance) (rate({selector(NODE_CPU, mode='idle')}[$__rate_interval]))",
                    legend="{{instance}}",
                ),
            ),
            unit="percentunit",
            minimum=0,
            maximum=1,
            width=8,
        ),
        Panel(
            kind="timeseries",
            title="Memory in use",
            question="Is a machine about to kill processes? Look into it from 80 % on.",
            queries=(
                Query(
                    expr=f"1 - {max_of(NODE_MEMORY_AVAILABLE, 'instance')} / {max_of(NODE_MEMORY_TOTAL, 'instance')}",
                    legend="{{instance}}",
                ),
            ),
            unit="percentunit",
            minimum=0,
            maximum=1,
            width=8,
        ),
        Panel(
            kind="timeseries",
            title="Fullest disk",
            question="Does a disk fill up?",
            queries=(
                Query(
                    expr=(
                        f"max by (instance) (1 - {selector(NODE_DISK_FREE, fstype=_REAL_DISKS)} / {selector(NODE_DISK_SIZE, fstype=_REAL_DISKS)})"
                    ),
                    legend="{{instance}}",
                ),
            ),
            unit="percentunit",
            minimum=0,
            maximum=1,
            width=8,
        ),
    ),
)

_REDIS = Row(
    "Redis (redis_exporter)",
    (
        Panel(
            kind="stat",
            title="Redis",
            question="Does Redis answer?",
            queries=(Query(expr=max_of(REDIS_UP, "instance"), legend="{{instance}}"),),
            mappings=UP,
            unit="none",
            width=6,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Memory of its limit",
            question="How full is Redis? From 80 % on, raise its limit. Redis without a limit is not shown.",
            queries=(
                Query(expr=f"{max_of(REDIS_MEMORY, 'instance')} / ({max_of(REDIS_MEMORY_MAX, 'instance')} > 0)", legend="{{instance}}"),
            ),
            unit="percentunit",
            steps=higher_is_worse(0.8, 0.95),
            width=6,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Evicted keys (range)",
            question="Did Redis evict keys? A broker must never: set maxmemory-policy to noeviction.",
            queries=(Query(expr=increase_of(REDIS_EVICTED, "instance"), legend="{{instance}}"),),
            unit="none",
            decimals=0,
            steps=(Step(None, "green"), Step(1, "red")),
            width=6,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Hit ratio",
            question="Does the cache on this Redis help? Meaningless for a broker.",
            queries=(
                Query(
                    expr=(
                        f"{per_second(REDIS_HITS, 'instance')} / "
                        f"({per_second(REDIS_HITS, 'instance')} + {per_second(REDIS_MISSES, 'instance')} > 0)"
                    ),
                    legend="{{instance}}",
                ),
            ),
            unit="percentunit",
            steps=higher_is_better(0.5, 0.7),
            width=6,
            height=4,
        ),
        Panel(
            kind="timeseries",
            title="Memory of Redis",
            question="Does Redis grow?",
            queries=(Query(expr=max_of(REDIS_MEMORY, "instance"), legend="{{instance}}"),),
            unit="bytes",
        ),
        Panel(
            kind="timeseries",
            title="Clients of Redis",
            question="Do connections leak?",
            queries=(Query(expr=max_of(REDIS_CLIENTS, "instance"), legend="{{instance}}"),),
            unit="none",
        ),
    ),
)

_APPLICATION = Row(
    "The application (metrics that it declares for itself), its database and its containers",
    (
        Panel(
            kind="timeseries",
            title="Requests per second by status",
            question="Does the application's API work?",
            queries=(
                Query(expr=per_second(HTTP_REQUESTS, "status_code"), legend="{{status_code}}", absent_where=_undeclared(HTTP_REQUESTS)),
            ),
            unit="reqps",
            stacked=True,
            width=8,
        ),
        Panel(
            kind="timeseries",
            title="Share of 5xx by endpoint",
            question="Which endpoint fails?",
            queries=(
                Query(
                    expr=ratio_of(HTTP_REQUESTS, "endpoint", of={"status_code": Match("=~", "5..")}),
                    legend="{{endpoint}}",
                    absent_where=_undeclared(HTTP_REQUESTS),
                ),
            ),
            unit="percentunit",
            maximum=1,
            width=8,
        ),
        Panel(
            kind="timeseries",
            title="Request latency",
            question="Is the application's API fast?",
            queries=(
                Query(expr=quantile_of(0.5, HTTP_DURATION), legend="p50", absent_where=_undeclared(HTTP_DURATION)),
                Query(expr=quantile_of(0.95, HTTP_DURATION), legend="p95", exemplars=True, absent_where=_undeclared(HTTP_DURATION)),
                Query(expr=quantile_of(0.99, HTTP_DURATION), legend="p99", absent_where=_undeclared(HTTP_DURATION)),
            ),
            unit="s",
            width=8,
        ),
        Panel(
            kind="stat",
            title="Database",
            question="Does the database answer?",
            queries=(Query(expr=max_of(PG_UP, "instance"), legend="{{instance}}", absent_where="no postgres_exporter is scraped"),),
            mappings=UP,
            unit="none",
            width=4,
        ),
        Panel(
            kind="timeseries",
            title="Database connections in use",
            question="Does the application run out of database connections?",
            queries=(
                Query(
                    expr=f"{sum_of(POOL_IN_USE, 'instance')} / ({sum_of(POOL_SIZE, 'instance')} > 0)",
                    legend="{{instance}}",
                    absent_where=_undeclared(POOL_IN_USE),
                ),
            ),
            unit="percentunit",
            minimum=0,
            maximum=1,
            width=10,
        ),
        Panel(
            kind="timeseries",
            title="Memory of containers",
            question="Which container is near its limit? Containers without a limit are not shown.",
            queries=(
                Query(
                    expr=(
                        f"{max_of(CONTAINER_MEMORY, 'namespace', 'pod', 'container')} / "
                        f"({max_of(CONTAINER_LIMIT, 'namespace', 'pod', 'container')} > 0)"
                    ),
                    legend="{{namespace}} {{pod}} {{container}}",
                    absent_where="no cAdvisor, such as that of Kubernetes, is scraped",
                ),
            ),
            unit="percentunit",
            minimum=0,
            width=10,
        ),
    ),
)

INFRASTRUCTURE: Final = Dashboard(
    uid="celery-obs-infrastructure",
    title="Infrastructure",
    question="Is the problem in the workers, or in what they depend on?",
    rows=(_MACHINES, Row("Workers", ()), _REDIS, _APPLICATION, Row("Services that we call", ())),
    variables=(JOB,),
    tags=("infrastructure",),
)
