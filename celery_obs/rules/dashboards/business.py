"""
What the business sees: are customers' data delivered, and on time?
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.tasks import metrics as tasks
from celery_obs.rules.promql import none_of

from .model import Dashboard, Panel, Query, Row, Variable
from .parts import JOB, TO_TASKS, higher_is_better
from .queries import chosen, ratio_of, ratio_within


__all__ = ["BUSINESS"]


_TASK = chosen("task")
_ENDED = none_of("retry", "ignored")

_SUMMARY = Row(
    "Summary",
    (
        Panel(
            kind="stat",
            title="Delivered within 30 s",
            question="Which share of the chosen tasks was done within 30 seconds of being due? 95 % is the target for alerts.",
            queries=(Query(expr=ratio_within(tasks.LATENCY, 30.0, over="$__range", task=_TASK), legend="Within 30 s"),),
            unit="percentunit",
            steps=higher_is_better(0.9, 0.95),
            width=6,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Delivered at all",
            question="Which share of the chosen tasks succeeded? 99.5 % is the target.",
            queries=(
                Query(expr=ratio_of(tasks.FINISHED, of={"state": "success"}, over="$__range", state=_ENDED, task=_TASK), legend="Success"),
            ),
            unit="percentunit",
            steps=higher_is_better(0.99, 0.995),
            width=6,
            height=4,
        ),
    ),
)

_DELIVERY = Row(
    "Delivery",
    (
        Panel(
            kind="timeseries",
            title="Delivered within 30 s, by task",
            question="Which task is late?",
            queries=(Query(expr=ratio_within(tasks.LATENCY, 30.0, "task", task=_TASK), legend="{{task}}"),),
            unit="percentunit",
            ascending=True,
            maximum=1,
            links=(TO_TASKS,),
        ),
        Panel(
            kind="timeseries",
            title="Delivered at all, by task",
            question="Which task does not succeed?",
            queries=(Query(expr=ratio_of(tasks.FINISHED, "task", of={"state": "success"}, state=_ENDED, task=_TASK), legend="{{task}}"),),
            unit="percentunit",
            ascending=True,
            maximum=1,
            links=(TO_TASKS,),
        ),
    ),
)

BUSINESS: Final = Dashboard(
    uid="celery-obs-business",
    title="Business",
    question="Are customers' data delivered, and on time?",
    rows=(_SUMMARY, _DELIVERY, Row("Customers", ())),
    variables=(JOB, Variable("task", "Task", tasks.FINISHED.name)),
    tags=("business",),
    since="now-24h",
)
