"""
Tasks that hang, each in its own way, until a key of the test's lets them go; and one that is quick.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time

from typing import Any

from celery import Celery
from redis import Redis

import celery_obs


app = Celery("hanging", broker=os.environ["TEST_BROKER"])
app.conf.update(task_ignore_result=True, task_default_queue="work", broker_connection_retry_on_startup=True)
if os.environ.get("TEST_TAKES"):
    import signal

    signal.signal(signal.SIGRTMIN + int(os.environ["TEST_TAKES"]), lambda *_: None)
celery_obs.setup(app)


@app.task(bind=True)
def in_a_pattern(self: Any, length: int) -> None:
    """
    Hold the GIL for seconds: no handler written in Python runs meanwhile.
    """
    found = re.match(r"(a+)+$", "a" * length + "b")
    _told(self, "no match" if found is None else "a match")


@app.task(bind=True)
def in_a_sleep(self: Any, seconds: float) -> None:
    begin = time.monotonic()
    time.sleep(seconds)
    _told(self, "slept" if time.monotonic() - begin >= seconds else "woken early")


@app.task(bind=True)
def in_a_read(self: Any, seconds: float) -> None:
    ours, theirs = socket.socketpair()
    threading.Timer(seconds, theirs.sendall, (b"late",)).start()
    _told(self, ours.recv(100).decode())


@app.task(bind=True)
def quick(self: Any, number: int) -> None:
    _told(self, str(sum(range(20_000)) + number))


def _told(task: Any, result: str) -> None:
    Redis.from_url(os.environ["TEST_LEDGER"]).hset("results", task.request.id, result)
