"""
Alerts about ourselves: what watches the others cannot see, or is not seen.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.links import JOB
from celery_obs.rules.promql import gauge, happened, max_by, min_by, one_of, sum_by
from celery_obs.rules.rules import Alert
from celery_obs.rules.third_party import UP
from celery_obs.rules.thresholds import amount
from celery_obs.vocabulary.conditions import METRIC_FILES_UNREADABLE

from .metrics import (
    BUILD_INFO,
    COLLECTOR_SUCCESS,
    DROPPED,
    INTERNAL_ERRORS,
    LABELS_FOLDED,
    LEADER,
    METRIC_FILES,
    PAGE_SAMPLES,
    SAMPLE_LIMIT,
)


__all__ = ["ALERTS"]


_WHO = ("job", "instance")

ALERTS: Final = (
    Alert(
        name="Watchdog",
        severity="none",
        expr="vector(1)",
        summary="The alerting pipeline works",
        description="This alert always fires. When it stops arriving, Prometheus or Alertmanager is broken, and no other alert will arrive either.",
        dashboard="celery-obs-exporter",
    ),
    Alert(
        name="CeleryObsExporterDown",
        severity="critical",
        expr=f"{max_by(gauge(UP, job=JOB), *_WHO)} == 0",
        for_="5m",
        by=_WHO,
        summary="The exporter at {{ $labels.instance }} does not answer",
        description="Prometheus has not been able to scrape {{ $labels.instance }} for $for. Its workers are not observed.",
        dashboard="celery-obs-exporter",
    ),
    Alert(
        name="CeleryObsAbsent",
        severity="critical",
        expr=f"absent({gauge(BUILD_INFO)})",
        for_="5m",
        summary="No exporter is scraped",
        description="Prometheus has had no exporter to scrape for $for: none runs, or service discovery has lost them.",
        dashboard="celery-obs-exporter",
    ),
    Alert(
        name="CeleryObsCollectorFailing",
        severity="warning",
        expr=f"{min_by(gauge(COLLECTOR_SUCCESS), *_WHO, 'collector')} == 0",
        for_="10m",
        by=(*_WHO, "collector"),
        summary="Exporter collector {{ $labels.collector }} is failing at {{ $labels.instance }}",
        description="Collector {{ $labels.collector }} of {{ $labels.instance }} has failed for $for. Its metrics are old or absent.",
        dashboard="celery-obs-exporter",
    ),
    Alert(
        name="CeleryObsMetricFilesUnreadable",
        severity=METRIC_FILES_UNREADABLE.severity,
        expr=f"{max_by(gauge(METRIC_FILES, state=one_of('corrupt', 'unsupported')), *_WHO, 'state')} > $threshold",
        threshold=amount(METRIC_FILES_UNREADABLE.threshold),
        for_=METRIC_FILES_UNREADABLE.for_,
        by=(*_WHO, "state"),
        summary="The exporter at {{ $labels.instance }} cannot read metric files",
        description="{{ $value }} metric files beside {{ $labels.instance }} are {{ $labels.state }}. What is in them is not counted.",
        dashboard="celery-obs-exporter",
    ),
    Alert(
        name="CeleryObsNoLeader",
        severity="warning",
        expr=f"{sum_by(gauge(LEADER))} == 0",
        for_="5m",
        summary="No exporter serves the state of the cluster",
        description="No exporter has been the leader for $for. Breakers, tokens, connections and drift are not shown, and their alerts cannot fire.",
        dashboard="celery-obs-exporter",
    ),
    Alert(
        name="CeleryObsDropping",
        severity="warning",
        expr=f"{happened(DROPPED, '15m', 'reason')} > $threshold",
        threshold=amount(0),
        for_="5m",
        by=("reason",),
        summary="Observations are dropped",
        description='{{ $value | printf "%.0f" }} observations could not be recorded in the last 15 minutes, because of {{ $labels.reason }}.',
        dashboard="celery-obs-exporter",
        keep_firing_for="15m",
    ),
    Alert(
        name="CeleryObsInternalErrors",
        severity="warning",
        expr=f"{happened(INTERNAL_ERRORS, '15m', 'component')} > $threshold",
        threshold=amount(0),
        for_="5m",
        by=("component",),
        summary="celery_obs has internal errors",
        description='{{ $value | printf "%.0f" }} internal errors of component {{ $labels.component }} in the last 15 minutes. The observed program is not affected.',
        dashboard="celery-obs-exporter",
        keep_firing_for="15m",
    ),
    Alert(
        name="CeleryObsLabelsFolded",
        severity="info",
        expr=f"{happened(LABELS_FOLDED, '1h', 'metric')} > $threshold",
        threshold=amount(0),
        for_="5m",
        by=("metric",),
        summary="A metric has too many label values",
        description='{{ $value | printf "%.0f" }} observations of {{ $labels.metric }} were counted as _other in the last hour.',
        dashboard="celery-obs-exporter",
        keep_firing_for="1h",
    ),
    Alert(
        name="CeleryObsPageNearLimit",
        severity="warning",
        expr=f"{max_by(gauge(PAGE_SAMPLES), *_WHO)} > $threshold",
        threshold=amount(0.8 * SAMPLE_LIMIT),
        for_="15m",
        by=_WHO,
        summary="The page of the exporter at {{ $labels.instance }} is near Prometheus' sample limit",
        description='It has {{ $value | printf "%.0f" }} samples (threshold: $threshold). Above sample_limit of the scrape configuration Prometheus drops all of them.',
        dashboard="celery-obs-exporter",
    ),
)
