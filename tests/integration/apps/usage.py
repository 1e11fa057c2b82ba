"""
Tasks that burn processor time, leak, wait, and fifty that do a little of all.
"""

from __future__ import annotations

import os
import time

from celery import Celery, Task

import celery_obs


app = Celery("usage", broker=os.environ["TEST_BROKER"])
app.conf.update(task_ignore_result=True, task_default_queue="work", broker_connection_retry_on_startup=True)
celery_obs.setup(app)

_leaked: list[bytes] = []


def _burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@app.task
def burn() -> None:
    _burn(0.12)


@app.task
def leak() -> None:
    _leaked.append(os.urandom(1) * (10 << 20))
    time.sleep(0.02)


@app.task
def wait() -> None:
    time.sleep(0.12)


class Some(Task):  # type: ignore[misc]  # Celery has no types.
    """
    One of many, each with a number of its own.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f"usage.some-{number}"

    def run(self) -> None:
        held = bytearray(200_000 * (self.number % 7 + 1))
        _burn(0.005 + self.number % 5 / 1000)
        held[-1] = 1
        time.sleep(0.01)


for _number in range(50):
    app.register_task(Some(_number))
