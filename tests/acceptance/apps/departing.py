"""
An app that has celery_obs, and then has not: ``OBSERVED`` says which.  ``SCHEDULER`` is ``celery``, ``django`` or ``redbeat``.
"""

from __future__ import annotations

import os

from celery import Celery


REDIS = os.environ["TEST_BROKER"]
SCHEDULER = os.environ.get("SCHEDULER", "celery")

app = Celery("departing", broker=REDIS, set_as_current=True)
app.conf.update(
    task_default_queue="work",
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    beat_max_loop_interval=1,
    beat_schedule_filename=os.environ.get("SCHEDULE_FILE", "schedule"),
    beat_scheduler={
        "celery": "celery.beat:PersistentScheduler",
        "django": "django_celery_beat.schedulers:DatabaseScheduler",
        "redbeat": "redbeat.RedBeatScheduler",
    }[SCHEDULER],
    beat_schedule={"theirs": {"task": "departing.work", "schedule": 1.0}},
)
if SCHEDULER == "redbeat":
    app.conf.update(redbeat_redis_url=REDIS, redbeat_key_prefix="rb:", redbeat_lock_key=None)

if SCHEDULER == "django":
    import django

    from django.conf import settings

    settings.configure(
        INSTALLED_APPS=["django_celery_beat"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"], "OPTIONS": {"timeout": 20}}},
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        TIME_ZONE="UTC",
        USE_TZ=True,
    )
    django.setup()

if os.environ.get("OBSERVED") == "1":
    import celery_obs

    app.conf.celery_obs = {"beat_periods": {"take_census": 5.0, "export_breaker_states": 5.0}, "connection_source": "departing:connections"}
    celery_obs.setup(app)


def connections() -> list[dict[str, str]]:
    """
    Tell which connections there are: none.
    """
    return []


@app.task
def work() -> None:
    """
    What the app is for.
    """
