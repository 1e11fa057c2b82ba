"""
Ourselves: the health of celery_obs itself.
"""

from __future__ import annotations

from typing import Final

from celery_obs.vocabulary.spec import Metric


__all__ = [
    "BUILD_INFO",
    "COLLECTOR_AGE",
    "COLLECTOR_DURATION",
    "COLLECTOR_SUCCESS",
    "DROPPED",
    "FILE_STATES",
    "INTERNAL_ERRORS",
    "LABELS_FOLDED",
    "LEADER",
    "METRIC_FILES",
    "PAGE_SAMPLES",
    "SAMPLE_LIMIT",
]


FILE_STATES: Final[tuple[str, ...]] = ("live", "dead", "vanished", "corrupt", "unsupported")
"""
What a metric file can be: written by a living process; left by a dead one and still counted; gone, and still counted; unreadable; of another version.
"""

BUILD_INFO = Metric(
    kind="gauge",
    name="celery_obs_build_info",
    help="Which version of celery_obs runs? Always 1.",
    labels=("version", "python"),
)
COLLECTOR_SUCCESS = Metric(
    kind="gauge",
    name="celery_obs_collector_success",
    help="Does this collector work? 1 if its last run succeeded.",
    labels=("collector",),
)
COLLECTOR_DURATION = Metric(
    kind="gauge",
    name="celery_obs_collector_duration_seconds",
    help="Which collector is slow? Duration of its last finished run.",
    labels=("collector",),
)
COLLECTOR_AGE = Metric(
    kind="gauge",
    name="celery_obs_collector_age_seconds",
    help="How old is the collector's data? Seconds since its last success.",
    labels=("collector",),
)
INTERNAL_ERRORS = Metric(
    kind="counter",
    name="celery_obs_internal_errors_total",
    help="Does celery_obs itself fail? Its own errors by component; they do not reach the observed program.",
    labels=("component",),
)
LABELS_FOLDED = Metric(
    kind="counter",
    name="celery_obs_labels_folded_total",
    help="Which metric has too many label values? Observations counted as _other.",
    labels=("metric",),
)
DROPPED = Metric(
    kind="counter",
    name="celery_obs_dropped_total",
    help="What could not be recorded, and why?",
    labels=("reason",),
)
METRIC_FILES = Metric(
    kind="gauge",
    name="celery_obs_metric_files",
    help="Which metric files does the sidecar see, and in what state?",
    labels=("state",),
)
SAMPLE_LIMIT: Final = 2_000_000
"""
Samples of one page that the shipped scrape configurations accept: 16,000 tasks on one queue each, at some 123 samples.

A page that has more is refused as a whole by Prometheus, so that an alert tells before.
"""

PAGE_SAMPLES = Metric(
    kind="gauge",
    name="celery_obs_page_samples",
    help="Is this page too large for Prometheus? Samples on it, to compare with sample_limit of the scrape configuration.",
)
LEADER = Metric(
    kind="gauge",
    name="celery_obs_leader",
    help="Which exporter is the leader, and serves the cluster's state? 1 on the leader.",
)
