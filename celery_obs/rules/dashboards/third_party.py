"""
Metrics of others that only dashboards show, besides those that rules read as well: :mod:`celery_obs.rules.third_party` has these.

Named as the programs expose them, with the labels that we use.
"""

from __future__ import annotations

import sys

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from celery_obs.areas.catalogue import catalogue
from celery_obs.rules.third_party import FOREIGN
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
    "REDIS_UP",
    "SCRAPE_DURATION",
    "SCRAPE_SAMPLES",
]


ALERTS = Metric(
    kind="gauge",
    name="ALERTS",
    help="What fires, and what is about to? Of Prometheus.",
    labels=("alertname", "alertstate", "severity", "channel_type"),
)
SCRAPE_DURATION = Metric(kind="gauge", name="scrape_duration_seconds", help="How long did the scrape take? Of Prometheus.")
SCRAPE_SAMPLES = Metric(kind="gauge", name="scrape_samples_scraped", help="How many series does a target have? Of Prometheus.")

PROCESS_MEMORY = Metric(kind="gauge", name="process_resident_memory_bytes", help="How much memory does the process hold?")
PROCESS_CPU = Metric(kind="counter", name="process_cpu_seconds_total", help="How busy is the process?")

NODE_CPU = Metric(
    kind="counter", name="node_cpu_seconds_total", help="What do the processors do? Of node_exporter.", labels=("cpu", "mode")
)
NODE_MEMORY_AVAILABLE = Metric(kind="gauge", name="node_memory_MemAvailable_bytes", help="How much memory is available? Of node_exporter.")
NODE_MEMORY_TOTAL = Metric(kind="gauge", name="node_memory_MemTotal_bytes", help="How much memory is there? Of node_exporter.")
NODE_DISK_FREE = Metric(
    kind="gauge", name="node_filesystem_avail_bytes", help="How much room is left? Of node_exporter.", labels=("mountpoint", "fstype")
)
NODE_DISK_SIZE = Metric(
    kind="gauge", name="node_filesystem_size_bytes", help="How much room is there? Of node_exporter.", labels=("mountpoint", "fstype")
)

REDIS_UP = Metric(kind="gauge", name="redis_up", help="Does Redis answer its exporter? Of redis_exporter.")
REDIS_CLIENTS = Metric(kind="gauge", name="redis_connected_clients", help="Who is connected? Of redis_exporter.")
REDIS_EVICTED = Metric(
    kind="counter", name="redis_evicted_keys_total", help="How many keys did Redis evict for lack of memory? Of redis_exporter."
)

MET_OUTSIDE: Final[Mapping[str, Metric]] = MappingProxyType({**FOREIGN, **catalogue([sys.modules[__name__]])})
"""
All of them by name, those of the rules included.
"""
