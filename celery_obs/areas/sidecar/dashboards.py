"""
The exporter itself: can I believe what the other pages show?
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.dashboards import third_party as outside
from celery_obs.rules.dashboards.model import WIDTH, Dashboard, Mapping, Panel, Query, Row, Step, Variable
from celery_obs.rules.dashboards.parts import JOB, UP, coloured, higher_is_worse
from celery_obs.rules.dashboards.queries import chosen, increase_of, max_of, per_minute, per_second, selector, sum_of
from celery_obs.rules.third_party import UP as UP_OF_TARGETS
from celery_obs.vocabulary.spec import Metric

from . import metrics as ourselves


__all__ = ["DASHBOARDS", "EXPORTER"]


_JOB = chosen("job")
_INSTANCE = chosen("instance")


def _happened(metric: Metric, label: str) -> Query:
    """
    Ask how often a minute each kind of trouble came up; where none did, one line says ``none``, as long as an exporter is there to know.
    """
    quiet = f'label_replace(0 * {sum_of(ourselves.BUILD_INFO, instance=_INSTANCE)}, "{label}", "none", "", "")'
    trouble = per_minute(metric, label, instance=_INSTANCE)
    return Query(expr=f"{trouble} or on () {quiet}", legend=f"{{{{{label}}}}}")


_SUMMARY = Row(
    "Summary",
    (
        Panel(
            kind="stat",
            title="Exporters scraped",
            question="How many exporters could Prometheus reach?",
            queries=(Query(expr=sum_of(UP_OF_TARGETS, job=_JOB, instance=_INSTANCE), legend="Up"),),
            unit="none",
            steps=(Step(None, "red"), Step(1, "green")),
            width=6,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Holders of the lease",
            question="Does exactly one exporter serve the cluster's state? None: no exporter shows breakers, tokens and queues.",
            queries=(Query(expr=sum_of(ourselves.LEADER, instance=_INSTANCE), legend="Leaders"),),
            unit="none",
            steps=(Step(None, "red"), Step(1, "green"), Step(2, "orange")),
            width=6,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Oldest collector",
            question="How old is the oldest data shown?",
            queries=(Query(expr=max_of(ourselves.COLLECTOR_AGE, instance=_INSTANCE), legend="Oldest"),),
            unit="s",
            steps=higher_is_worse(60, 300),
            width=6,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Not recorded (range)",
            question="How many observations were dropped in the time shown? No data without an exporter.",
            queries=(
                Query(
                    expr=f"{increase_of(ourselves.DROPPED, instance=_INSTANCE)} or 0 * {sum_of(ourselves.BUILD_INFO, instance=_INSTANCE)}",
                    legend="Dropped",
                ),
            ),
            unit="none",
            decimals=0,
            steps=(Step(None, "green"), Step(1, "yellow")),
            width=6,
            height=4,
        ),
    ),
)

_COLLECTORS = Row(
    "Collectors",
    (
        Panel(
            kind="state-timeline",
            title="Collectors",
            question="Which collector is failing, where, and since when? Its data is old then.",
            queries=(
                Query(
                    expr=f"min by (instance, collector) ({selector(ourselves.COLLECTOR_SUCCESS, instance=_INSTANCE)})",
                    legend="{{instance}} {{collector}}",
                ),
            ),
            mappings=(Mapping(0, "failing", "red"), Mapping(1, "well", "green")),
            unit="none",
            width=WIDTH,
        ),
        Panel(
            kind="timeseries",
            title="Age of what is shown",
            question="How old is the data shown?",
            queries=(
                Query(
                    expr=max_of(ourselves.COLLECTOR_AGE, "instance", "collector", instance=_INSTANCE), legend="{{instance}} {{collector}}"
                ),
            ),
            unit="s",
        ),
        Panel(
            kind="timeseries",
            title="Time a collector takes",
            question="Which collector is slow?",
            queries=(
                Query(
                    expr=max_of(ourselves.COLLECTOR_DURATION, "instance", "collector", instance=_INSTANCE),
                    legend="{{instance}} {{collector}}",
                ),
            ),
            unit="s",
        ),
    ),
)

_HONESTY = Row(
    "What is not on the other pages",
    (
        Panel(
            kind="timeseries",
            title="Errors of ours per minute",
            question="Does celery_obs itself fail? None of these errors reached the observed program.",
            queries=(_happened(ourselves.INTERNAL_ERRORS, "component"),),
            unit="opm",
            width=8,
        ),
        Panel(
            kind="timeseries",
            title="Not recorded per minute, by reason",
            question="What could not be recorded, and why?",
            queries=(_happened(ourselves.DROPPED, "reason"),),
            unit="opm",
            width=8,
        ),
        Panel(
            kind="timeseries",
            title="Folded into _other per minute, by metric",
            question="Which metric has too many label values?",
            queries=(_happened(ourselves.LABELS_FOLDED, "metric"),),
            unit="opm",
            width=8,
        ),
        Panel(
            kind="timeseries",
            title="Metric files by state",
            question="Which files does the sidecar see? Corrupt and unsupported ones are not counted.",
            queries=(Query(expr=sum_of(ourselves.METRIC_FILES, "state", instance=_INSTANCE), legend="{{state}}"),),
            unit="none",
            stacked=True,
            colours=coloured(ourselves.FILE_STATES),
        ),
        Panel(
            kind="state-timeline",
            title="Who holds the lease",
            question="Which exporter serves the cluster's state, and how often does that change?",
            queries=(Query(expr=max_of(ourselves.LEADER, "instance", instance=_INSTANCE), legend="{{instance}}"),),
            mappings=(Mapping(0, "waits", "text"), Mapping(1, "leads", "blue")),
            unit="none",
        ),
    ),
)

_PROCESS = Row(
    "The process",
    (
        Panel(
            kind="timeseries",
            title="Memory",
            question="How much memory does the exporter use?",
            queries=(Query(expr=max_of(outside.PROCESS_MEMORY, "instance", job=_JOB, instance=_INSTANCE), legend="{{instance}}"),),
            unit="bytes",
            width=6,
        ),
        Panel(
            kind="timeseries",
            title="Processors in use",
            question="How much CPU does the exporter use?",
            queries=(Query(expr=per_second(outside.PROCESS_CPU, "instance", job=_JOB, instance=_INSTANCE), legend="{{instance}}"),),
            width=6,
        ),
        Panel(
            kind="timeseries",
            title="Scrape duration",
            question="Do scrapes come near their timeout?",
            queries=(Query(expr=max_of(outside.SCRAPE_DURATION, "instance", job=_JOB, instance=_INSTANCE), legend="{{instance}}"),),
            unit="s",
            width=6,
        ),
        Panel(
            kind="timeseries",
            title="Series per exporter",
            question="How many series does Prometheus store?",
            queries=(Query(expr=max_of(outside.SCRAPE_SAMPLES, "instance", job=_JOB, instance=_INSTANCE), legend="{{instance}}"),),
            width=6,
        ),
        Panel(
            kind="table",
            title="Exporters",
            question="Which version runs where?",
            keys=(("instance", "Exporter"), ("version", "Version"), ("python", "Python")),
            queries=(
                Query(
                    expr=max_of(ourselves.BUILD_INFO, "instance", "version", "python", instance=_INSTANCE),
                    legend="Running",
                    unit="none",
                    mappings=UP,
                ),
            ),
            width=WIDTH,
            height=6,
        ),
    ),
)

EXPORTER: Final = Dashboard(
    uid="celery-obs-exporter",
    title="Celery Exporter Itself",
    question="Are the other dashboards complete and up to date?",
    rows=(_SUMMARY, _COLLECTORS, _HONESTY, _PROCESS),
    variables=(JOB, Variable("instance", "Exporter", ourselves.BUILD_INFO.name)),
    tags=("celery",),
)

DASHBOARDS: Final = (EXPORTER,)
