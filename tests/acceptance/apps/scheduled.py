"""
An app whose beat may have any scheduler: ``SCHEDULER`` is ``celery``, ``django``, ``redbeat`` or ``odd``.

Two ledgers of what was fired lie in Redis, as lists of times: ``sent:<entry>``, kept by an independent receiver in beat, and ``ran:<entry>``, kept by the task.
``ENTRIES`` is a dict of entry to its period in seconds, or ``"minute"`` for a crontab.  Run as a program, it changes the database: see `change`.
"""

from __future__ import annotations

import ast
import os
import sys
import time

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from celery import Celery, signals
from celery.beat import Scheduler
from celery.schedules import crontab
from redis import Redis

import celery_obs


SCHEDULER = os.environ.get("SCHEDULER", "celery")
REDIS = os.environ["TEST_BROKER"]

app = Celery("scheduled", broker=REDIS, set_as_current=True)
app.conf.update(
    task_default_queue=os.environ.get("QUEUE", "work"),
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    beat_scheduler={
        "celery": "celery.beat:PersistentScheduler",
        "django": "django_celery_beat.schedulers:DatabaseScheduler",
        "redbeat": "redbeat.RedBeatScheduler",
        "odd": "scheduled:OddScheduler",
    }[SCHEDULER],
    beat_schedule={
        name: {"task": "scheduled.record", "schedule": crontab() if period == "minute" else float(period), "kwargs": {"entry": name}}
        for name, period in ast.literal_eval(os.environ.get("ENTRIES", "{}")).items()
    },
    redbeat_redis_url=REDIS,
    redbeat_lock_timeout=int(os.environ.get("LOCK_TIMEOUT", "6")),
    redbeat_key_prefix="rb:",
    celery_obs={"sync_engine": True} if "CHANNELS" in os.environ else {"sync_engine": False},
    beat_max_loop_interval=float(os.environ.get("LOOP", "1")),
)
if os.environ.get("FIRST") == "redbeat":  # Its receiver comes before ours then.
    import redbeat  # noqa: F401
celery_obs.setup(app)

if SCHEDULER == "django":
    import django

    from django.conf import settings

    settings.configure(
        INSTALLED_APPS=["django_celery_beat", "django_celery_results"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": os.environ["DATABASE"],
                "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        TIME_ZONE="UTC",
        USE_TZ=True,
    )
    django.setup()
    app.conf.update(result_backend="django-db", task_ignore_result=False, result_extended=True)


@app.task(name="scheduled.record")
def record(entry: str) -> None:
    """
    Write down that an entry's message was taken.
    """
    with Redis.from_url(REDIS) as redis:
        redis.rpush(f"ran:{entry}", repr(time.time()))


@signals.after_task_publish.connect(weak=False)
def sent(sender: object = None, body: Any = None, **_: object) -> None:
    """
    Write down that an entry's message was published.
    """
    if sender == "scheduled.record" and SCHEDULER:
        with Redis.from_url(REDIS) as redis:
            redis.rpush(f"sent:{body[1]['entry']}", repr(time.time()))


class OddScheduler(Scheduler):  # type: ignore[misc]  # Celery has no types.
    """
    A scheduler of the app's own: it keeps no entries that can be seen, and publishes in a way of its own.
    """

    def setup_schedule(self) -> None:
        """
        Begin with what is configured.
        """
        self._hidden = {name: self._maybe_entry(name, entry) for name, entry in self.app.conf.beat_schedule.items()}

    def tick(self, *_: object, **__: object) -> float:
        """
        Fire what is due; hang when told to.
        """
        while Path(os.environ.get("HANG", "/nonexistent")).exists():
            time.sleep(0.1)
        for name, entry in self._hidden.items():
            is_due, _next = entry.is_due()
            if is_due:
                self._hidden[name] = next(entry)
                self.apply_entry(entry)
        return 0.5

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """
        Publish without the ways of others.
        """
        self.app.send_task(entry.task, entry.args, entry.kwargs)


def change(code: str) -> None:
    """
    Run *code* with django-celery-beat's models, in one transaction.

    At the first change that a running beat sees, it writes back every row that it has fired: reads the row, and saves all of it.  A second change of such a
    row within that moment would be undone.
    """
    from django.db import transaction
    from django_celery_beat import models

    words = {**vars(models), "now": datetime.now(timezone.utc), "timedelta": timedelta}
    with transaction.atomic():
        # A transaction that reads first and writes later is refused by SQLite where another program writes in between.
        models.PeriodicTask.objects.filter(pk=0).update(enabled=False)
        exec(code, words)  # noqa: S102 -- a test's own.


def migrate() -> None:
    """
    Make the database's tables.
    """
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


if __name__ == "__main__":
    migrate() if sys.argv[1] == "migrate" else change(sys.argv[1])
