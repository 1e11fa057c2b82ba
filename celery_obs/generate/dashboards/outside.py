"""
Metrics of others that stand on our dashboards: Prometheus's own, those of node_exporter and redis_exporter, and a Python process's.

Named as the programs expose them, with the labels that we use.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from celery_obs.vocabulary.spec import Metric


__all__ = [
    "ALERTS",
    "MET_OUTSIDE",
    "NODE_CPU",
    "NODE_DISK_FREE",
    "NODE_DISK_SIZE",
    "NODE_MEMORY_AVAILABLE",
    "NODE_MEMORY_TOTAL",
    "PROCESS_CPU",
    "PROCESS_MEMORY",
    "REDIS_CLIENTS",
    "REDIS_EVICTED",
    "REDIS_HITS",
    "REDIS_MAX_MEMORY",
    "REDIS_MEMORY",
    "REDIS_MISSES",
    "REDIS_UP",
    "SCRAPE_DURATION",
    "SCRAPE_SAMPLES",
    "TARGET_UP",
]


ALERTS: Final = Metric(
    kind="gauge", name="ALERTS", help="What fires, and what is about to?", labels=("alertname", "alertstate", "severity", "channel_type")
)
TARGET_UP: Final = Metric(kind="gauge", name="up", help="Could Prometheus scrape it?")
SCRAPE_DURATION: Final = Metric(kind="gauge", name="scrape_duration_seconds", help="How long did the scrape take?")
SCRAPE_SAMPLES: Final = Metric(kind="gauge", name="scrape_samples_scraped", help="How many series does a target have?")

PROCESS_MEMORY: Final = Metric(kind="gauge", name="process_resident_memory_bytes", help="How much memory does the process hold?")
PROCESS_CPU: Final = Metric(kind="counter", name="process_cpu_seconds_total", help="How busy is the process?")

NODE_CPU: Final = Metric(kind="counter", name="node_cpu_seconds_total", help="What do the processors do?", labels=("cpu", "mode"))
NODE_MEMORY_AVAILABLE: Final = Metric(kind="gauge", name="node_memory_MemAvailable_bytes", help="How much memory is to be had?")
NODE_MEMORY_TOTAL: Final = Metric(kind="gauge", name="node_memory_MemTotal_bytes", help="How much memory is there?")
NODE_DISK_FREE: Final = Metric(
    kind="gauge", name="node_filesystem_avail_bytes", help="How much room is left?", labels=("mountpoint", "fstype")
)
NODE_DISK_SIZE: Final = Metric(
    kind="gauge", name="node_filesystem_size_bytes", help="How much room is there?", labels=("mountpoint", "fstype")
)

REDIS_UP: Final = Metric(kind="gauge", name="redis_up", help="Does Redis answer its exporter?")
REDIS_MEMORY: Final = Metric(kind="gauge", name="redis_memory_used_bytes", help="How much memory does Redis hold?")
REDIS_MAX_MEMORY: Final = Metric(kind="gauge", name="redis_memory_max_bytes", help="How much may it hold? 0 where there is no limit.")
REDIS_CLIENTS: Final = Metric(kind="gauge", name="redis_connected_clients", help="Who is connected?")
REDIS_EVICTED: Final = Metric(kind="counter", name="redis_evicted_keys_total", help="What did Redis throw away for want of memory?")
REDIS_HITS: Final = Metric(kind="counter", name="redis_keyspace_hits_total", help="How many look-ups found something?")
REDIS_MISSES: Final = Metric(kind="counter", name="redis_keyspace_misses_total", help="How many found nothing?")

MET_OUTSIDE: Final = MappingProxyType({metric.name: metric for metric in list(vars().values()) if isinstance(metric, Metric)})
"""
All of them by name.
"""
