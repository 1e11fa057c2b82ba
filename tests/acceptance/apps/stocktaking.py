"""
An app that counts with prometheus_client's own multiprocess mode, and is observed by us as well.
"""

from __future__ import annotations

import os

from celery import Celery
from prometheus_client import Counter, Histogram

import celery_obs


SHIPPED = Counter("shipped", "Parcels.", ["what"])
WEIGHT = Histogram("parcel_weight_kilograms", "Weights.", buckets=[1, 2, 5])

app = Celery("stocktaking", broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_LEDGER"])
app.conf.update(task_default_queue="work", broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1)
celery_obs.setup(app)


@app.task(name="stocktaking.ship")
def ship(what: str) -> None:
    """
    Ship a parcel.
    """
    SHIPPED.labels(what).inc()
    WEIGHT.observe(2.5)
