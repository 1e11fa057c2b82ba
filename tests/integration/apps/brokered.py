"""
An app whose broker is as the test wants it: ``TEST_CONF`` is its configuration as JSON, ``TEST_BROADCAST`` the exchange of a broadcast queue.
"""

from __future__ import annotations

import json
import os

from typing import Any

from celery import Celery
from kombu import Exchange, Queue
from kombu.common import Broadcast

import celery_obs


app: Any = Celery("brokered", set_as_current=False)
app.conf.update(json.loads(os.environ.get("TEST_CONF", "{}")))
app.conf.task_default_queue = "orders"
if os.environ.get("TEST_BROADCAST"):
    news = os.environ["TEST_BROADCAST"]
    app.conf.task_queues = [
        Queue("orders", Exchange("orders"), routing_key="orders"),
        Broadcast(news, routing_key=news),
        Queue(f"mine-{os.getpid()}", Exchange("replies"), routing_key=f"mine-{os.getpid()}", auto_delete=True),
    ]
    app.conf.task_routes = {"brokered.told": {"queue": news, "exchange": news, "routing_key": news}}
celery_obs.setup(app)


@app.task(name="brokered.work")
def work() -> None:
    """
    Do nothing.
    """


@app.task(name="brokered.told")
def told() -> None:
    """
    Do nothing, in every worker.
    """


def tell() -> None:
    """
    Publish to the broadcast; with Redis, a publisher has to declare the exchange to have its messages broadcast.
    """
    with app.connection_for_write() as connection:
        Exchange(os.environ["TEST_BROADCAST"], type="fanout")(connection.default_channel).declare()
        told.apply_async(connection=connection)
