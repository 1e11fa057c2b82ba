"""
Metrics of others that some rules and dashboards read: Prometheus itself, exporters beside us, and what the application declares for itself.

As values like those of the vocabulary, so that the same checks hold for them.  Nothing of ours makes any of these.
"""

from __future__ import annotations

import sys

from typing import Final

from celery_obs.areas.catalogue import catalogue
from celery_obs.vocabulary.spec import Metric


__all__ = [
    "CONTAINER_LIMIT",
    "CONTAINER_MEMORY",
    "FOREIGN",
    "HTTP_DURATION",
    "HTTP_REQUESTS",
    "NEWSLETTERS",
    "PG_UP",
    "POOL_IN_USE",
    "POOL_SIZE",
    "REDIS_HITS",
    "REDIS_MEMORY",
    "REDIS_MEMORY_MAX",
    "REDIS_MISSES",
    "UP",
]


_CONTAINER = ("namespace", "pod", "container")

UP = Metric(kind="gauge", name="up", help="Does the target answer? 1 where the last scrape succeeded.")
HTTP_REQUESTS = Metric(
    kind="counter",
    name="http_requests_total",
    help="Does the application's API work? Requests by status; declared by the application.",
    labels=("method", "endpoint", "status_code"),
)
HTTP_DURATION = Metric(
    kind="histogram",
    name="http_request_duration_seconds",
    help="Is the application's API fast? Declared by the application, with these buckets, or its objectives cannot be measured.",
    labels=("method", "endpoint"),
    buckets=(0.01, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5),
)
POOL_IN_USE = Metric(
    kind="gauge",
    name="db_connection_pool_in_use",
    help="Does the application run out of database connections? Those in use; declared by the application.",
)
POOL_SIZE = Metric(
    kind="gauge",
    name="db_connection_pool_size",
    help="How many database connections may it have? Declared by the application.",
)
NEWSLETTERS = Metric(
    kind="counter",
    name="publishing_newsletter_deliveries_total",
    help="Do newsletters arrive? Deliveries by outcome; declared by the application.",
    labels=("status",),
)
PG_UP = Metric(kind="gauge", name="pg_up", help="Does the database answer? Of postgres_exporter.")
REDIS_HITS = Metric(kind="counter", name="redis_keyspace_hits_total", help="How many lookups hit the cache? Of redis_exporter.")
REDIS_MISSES = Metric(kind="counter", name="redis_keyspace_misses_total", help="How many lookups miss the cache? Of redis_exporter.")
REDIS_MEMORY = Metric(kind="gauge", name="redis_memory_used_bytes", help="How full is Redis? Of redis_exporter.")
REDIS_MEMORY_MAX = Metric(kind="gauge", name="redis_memory_max_bytes", help="How much may Redis use? 0 without a limit; of redis_exporter.")
CONTAINER_MEMORY = Metric(
    kind="gauge",
    name="container_memory_working_set_bytes",
    help="Which container uses the memory? Of cAdvisor.",
    labels=_CONTAINER,
)
CONTAINER_LIMIT = Metric(
    kind="gauge",
    name="container_spec_memory_limit_bytes",
    help="How much may the container use? 0 without a limit; of cAdvisor.",
    labels=_CONTAINER,
)

FOREIGN: Final = catalogue([sys.modules[__name__]])
"""
By name.
"""
