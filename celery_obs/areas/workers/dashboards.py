"""
Workers and tasks: is the work done, how long does it take, and who does it?
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.tasks import metrics as tasks
from celery_obs.rules.dashboards.model import WIDTH, Dashboard, Panel, Query, Row, Step, Variable
from celery_obs.rules.dashboards.parts import JOB, TO_TASKS, UP, coloured, higher_is_worse
from celery_obs.rules.dashboards.queries import (
    age,
    chosen,
    increase_of,
    max_of,
    mean,
    per_minute,
    per_second,
    quantile_of,
    ratio_of,
    sum_of,
)
from celery_obs.rules.promql import none_of, one_of

from . import metrics as workers


__all__ = ["DASHBOARDS", "WORKERS"]


_TASK = chosen("task")
_QUEUE = chosen("queue")
_UNHAPPY = one_of("failure", "timeout", "lost")
_ENDED = none_of("retry", "ignored")

_SUMMARY = Row(
    "Summary",
    (
        Panel(
            kind="stat",
            title="Workers up",
            question="How many workers are up?",
            queries=(Query(expr=f"sum ({max_of(workers.UP, 'worker')})", legend="Up"),),
            unit="none",
            steps=(Step(None, "red"), Step(1, "green")),
            width=4,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Pool in use",
            question="How much of the workers' pools is in use?",
            queries=(Query(expr=f"{sum_of(workers.POOL_BUSY)} / ({sum_of(workers.POOL_SIZE)} > 0)", legend="Busy"),),
            unit="percentunit",
            steps=higher_is_worse(0.8, 0.95),
            width=4,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Attempts per minute",
            question="How many tasks are finished?",
            queries=(Query(expr=per_minute(tasks.FINISHED, task=_TASK, queue=_QUEUE), legend="Attempts"),),
            unit="opm",
            width=4,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Failure share",
            question="Which share of the finished attempts failed, timed out or were lost?",
            queries=(
                Query(expr=ratio_of(tasks.FINISHED, of={"state": _UNHAPPY}, state=_ENDED, task=_TASK, queue=_QUEUE), legend="Failed"),
            ),
            unit="percentunit",
            steps=higher_is_worse(0.01, 0.05),
            width=4,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Longest running",
            question="Is a task hung? Right even if its process does not respond; 0 where nothing runs.",
            queries=(
                Query(
                    expr=f"{max_of(tasks.LONGEST_RUNNING, task=_TASK)} or {sum_of(tasks.IN_PROGRESS, task=_TASK)} == 0", legend="Longest"
                ),
            ),
            unit="s",
            steps=higher_is_worse(600, 3600),
            width=4,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Given up (range)",
            question="How many tasks exhausted their retries, in the time shown?",
            queries=(
                Query(
                    expr=(
                        f"{increase_of(tasks.FAILURES, exhausted='true', task=_TASK, queue=_QUEUE)} or "
                        f"0 * {increase_of(tasks.FINISHED, task=_TASK, queue=_QUEUE)}"
                    ),
                    legend="Given up",
                ),
            ),
            unit="none",
            decimals=0,
            steps=(Step(None, "green"), Step(1, "red")),
            width=4,
            height=4,
        ),
    ),
)

_TASKS = Row(
    "Tasks",
    (
        Panel(
            kind="timeseries",
            title="Attempts per minute by outcome",
            question="How do tasks end? Lost: the process died unexpectedly.",
            queries=(Query(expr=per_minute(tasks.FINISHED, "state", task=_TASK, queue=_QUEUE), legend="{{state}}"),),
            unit="opm",
            stacked=True,
            colours=coloured(tasks.STATES),
        ),
        Panel(
            kind="timeseries",
            title="Failures per minute by exception",
            question="Why do tasks fail?",
            queries=(
                Query(expr=per_minute(tasks.FAILURES, "task", "exception", task=_TASK, queue=_QUEUE), legend="{{task}}: {{exception}}"),
            ),
            unit="opm",
            stacked=True,
            links=(TO_TASKS,),
        ),
        Panel(
            kind="timeseries",
            title="Retries per minute by reason",
            question="Why do tasks retry?",
            queries=(Query(expr=per_minute(tasks.RETRIES, "task", "reason", task=_TASK, queue=_QUEUE), legend="{{task}}: {{reason}}"),),
            unit="opm",
            stacked=True,
            links=(TO_TASKS,),
        ),
        Panel(
            kind="timeseries",
            title="Attempts until settled (mean)",
            question="How many attempts does a task need? 1 is the best.",
            queries=(Query(expr=mean(tasks.ATTEMPTS, "task", task=_TASK, queue=_QUEUE), legend="{{task}}"),),
            minimum=1,
            links=(TO_TASKS,),
        ),
        Panel(
            kind="timeseries",
            title="Runtime of an attempt",
            question="How long does an attempt of the chosen tasks take, failed and killed ones included?",
            queries=(
                Query(expr=quantile_of(0.5, tasks.RUNTIME, task=_TASK, queue=_QUEUE), legend="p50"),
                Query(expr=quantile_of(0.95, tasks.RUNTIME, task=_TASK, queue=_QUEUE), legend="p95", exemplars=True),
                Query(expr=quantile_of(0.99, tasks.RUNTIME, task=_TASK, queue=_QUEUE), legend="p99"),
            ),
            unit="s",
            width=8,
        ),
        Panel(
            kind="timeseries",
            title="Runtime of an attempt, by task (p95)",
            question="Which task is slow?",
            queries=(Query(expr=quantile_of(0.95, tasks.RUNTIME, "task", task=_TASK, queue=_QUEUE), legend="{{task}}", exemplars=True),),
            unit="s",
            width=8,
            links=(TO_TASKS,),
        ),
        Panel(
            kind="timeseries",
            title="Time until a task is done (p95)",
            question="How long after it was due is a task done, retries included?",
            queries=(Query(expr=quantile_of(0.95, tasks.LATENCY, "task", task=_TASK, queue=_QUEUE), legend="{{task}}", exemplars=True),),
            unit="s",
            width=8,
            links=(TO_TASKS,),
        ),
        Panel(
            kind="timeseries",
            title="Running now",
            question="What is running now?",
            queries=(Query(expr=sum_of(tasks.IN_PROGRESS, "task", task=_TASK), legend="{{task}}"),),
            unit="none",
            stacked=True,
            links=(TO_TASKS,),
        ),
        Panel(
            kind="timeseries",
            title="Age of the longest running attempt",
            question="Which task is hung, and since when?",
            queries=(Query(expr=max_of(tasks.LONGEST_RUNNING, "task", task=_TASK), legend="{{task}}"),),
            unit="s",
            links=(TO_TASKS,),
        ),
        Panel(
            kind="table",
            title="Tasks in the time shown",
            question="Which task is frequent, slow or failing?",
            keys=(("task", "Task"),),
            queries=(
                Query(expr=increase_of(tasks.FINISHED, "task", task=_TASK, queue=_QUEUE), legend="Attempts", unit="none", decimals=0),
                Query(
                    expr=ratio_of(tasks.FINISHED, "task", of={"state": _UNHAPPY}, over="$__range", state=_ENDED, task=_TASK, queue=_QUEUE),
                    legend="Failed",
                    unit="percentunit",
                    steps=higher_is_worse(0.01, 0.05),
                ),
                Query(
                    expr=quantile_of(0.95, tasks.RUNTIME, "task", over="$__range", task=_TASK, queue=_QUEUE), legend="Runtime p95", unit="s"
                ),
                Query(
                    expr=quantile_of(0.95, tasks.QUEUE_WAIT, "task", over="$__range", task=_TASK, queue=_QUEUE), legend="Wait p95", unit="s"
                ),
                Query(
                    expr=quantile_of(0.95, tasks.LATENCY, "task", over="$__range", task=_TASK, queue=_QUEUE),
                    legend="Done after, p95",
                    unit="s",
                ),
            ),
            sort_by="Attempts",
            width=WIDTH,
            height=10,
            links=(TO_TASKS,),
        ),
    ),
)

_WORKERS = Row(
    "Workers",
    (
        Panel(
            kind="table",
            title="Workers",
            question="Which workers are up, and how busy are they?",
            keys=(("worker", "Worker"),),
            queries=(
                Query(expr=max_of(workers.UP, "worker"), legend="State", unit="none", mappings=UP),
                Query(expr=age(workers.HEARTBEAT, "worker"), legend="Last heartbeat", unit="s", steps=higher_is_worse(15, 60)),
                Query(expr=max_of(workers.POOL_SIZE, "worker"), legend="Pool", unit="none"),
                Query(expr=max_of(workers.POOL_BUSY, "worker"), legend="Busy", unit="none"),
                Query(expr=max_of(workers.RESERVED, "worker"), legend="Reserved", unit="none"),
                Query(expr=max_of(workers.SCHEDULED, "worker"), legend="Waiting for an ETA", unit="none"),
            ),
            sort_by="Last heartbeat",
            width=16,
        ),
        Panel(
            kind="table",
            title="Versions and pools",
            question="What runs there?",
            keys=(("worker", "Worker"), ("version", "Celery"), ("pool", "Pool")),
            queries=(Query(expr=max_of(workers.INFO, "worker", "version", "pool"), legend="Nodes", unit="none"),),
            width=8,
        ),
        Panel(
            kind="state-timeline",
            title="Workers over time",
            question="Which worker went down, and when did it come back?",
            queries=(Query(expr=max_of(workers.UP, "worker"), legend="{{worker}}"),),
            mappings=UP,
            unit="none",
            width=WIDTH,
            height=7,
        ),
        Panel(
            kind="timeseries",
            title="Pool processes replaced per minute, by reason",
            question="Why are pool processes replaced? Recycled is routine; killed, lost and memory are not.",
            queries=(Query(expr=per_minute(workers.PROCESS_RESTARTS, "worker", "reason"), legend="{{worker}}: {{reason}}"),),
            unit="opm",
            stacked=True,
            width=8,
        ),
        Panel(
            kind="timeseries",
            title="Memory of pool processes",
            question="Which worker uses the memory?",
            queries=(Query(expr=sum_of(workers.RESIDENT_MEMORY, "worker"), legend="{{worker}}"),),
            unit="bytes",
            stacked=True,
            width=8,
        ),
        Panel(
            kind="timeseries",
            title="Processors in use",
            question="Which worker uses the CPU? 1 is one CPU, all the time.",
            queries=(Query(expr=per_second(workers.CPU_SECONDS, "worker"), legend="{{worker}}"),),
            unit="short",
            stacked=True,
            width=8,
        ),
        Panel(
            kind="bargauge",
            title="Pool in use by worker",
            question="Is the work spread evenly, and is there room?",
            queries=(
                Query(
                    expr=f"{max_of(workers.POOL_BUSY, 'worker')} / ({max_of(workers.POOL_SIZE, 'worker')} > 0)",
                    legend="{{worker}}",
                ),
            ),
            unit="percentunit",
            minimum=0,
            maximum=1,
            steps=higher_is_worse(0.8, 0.95),
            width=WIDTH,
            height=6,
        ),
    ),
)

WORKERS: Final = Dashboard(
    uid="celery-tasks",
    title="Celery Workers and Tasks",
    question="Are tasks done, how long do they take, and which workers run them?",
    rows=(_SUMMARY, _TASKS, _WORKERS),
    variables=(JOB, Variable("task", "Task", tasks.FINISHED.name), Variable("queue", "Queue", tasks.FINISHED.name)),
    tags=("celery",),
)

DASHBOARDS: Final = (WORKERS,)
