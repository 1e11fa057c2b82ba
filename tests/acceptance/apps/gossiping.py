"""
An app whose task writes down what it sees before it does anything, and leaves things behind for the next task.
"""

from __future__ import annotations

import json
import os

import sentry_sdk

from celery import Celery, Task
from celery.exceptions import Ignore, Reject
from opentelemetry import context, trace
from redis import Redis
from structlog.contextvars import bind_contextvars, get_contextvars

import celery_obs


app = Celery("gossiping", broker=os.environ["TEST_BROKER"])
app.conf.update(
    task_default_queue=os.environ["TEST_QUEUE"],
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=4,
)
celery_obs.setup(app)


@app.task(bind=True, max_retries=1)
def look(self: Task, how: str) -> None:
    """
    Tell what is there, leave something, and end as *how* says.
    """
    task_id = self.request.id
    scope = sentry_sdk.get_isolation_scope()
    seen = {
        "task_id": task_id,
        "correlation_id": celery_obs.correlation_id(),
        "trace": f"{trace.get_current_span().get_span_context().trace_id:032x}",
        "bound": get_contextvars(),
        "left in the context": context.get_value("left"),
        "left with Sentry": scope._tags.get("left"),
    }
    with Redis.from_url(os.environ["TEST_BROKER"]) as ledger:
        ledger.rpush(f"saw:{os.environ['TEST_QUEUE']}", json.dumps(seen))
    bind_contextvars(left=task_id)
    context.attach(context.set_value("left", task_id))
    scope.set_tag("left", task_id)
    if how == "fail":
        raise ValueError(task_id)
    if how == "retry" and self.request.retries == 0:
        raise self.retry(countdown=0)
    if how == "ignore":
        raise Ignore
    if how == "reject":
        raise Reject("on purpose", requeue=False)
