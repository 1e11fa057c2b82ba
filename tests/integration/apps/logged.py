"""
The app whose lines are read: tasks that say, bind, fail, retry and hide things.
"""

from __future__ import annotations

import logging
import os
import random
import time

import structlog

from celery import Celery, Task, chain, chord
from celery.signals import after_setup_logger, setup_logging

import celery_obs


BROKER = os.environ["TEST_BROKER"]

app = Celery("logged", broker=BROKER, backend=BROKER)
app.conf.update(task_default_queue="work", broker_connection_retry_on_startup=True, task_send_sent_event=False)
app.conf.worker_hijack_root_logger = os.environ.get("TEST_HIJACK") != "0"
if os.environ.get("TEST_SETUP") == "imports":
    app.conf.imports = ("logged", "celery_obs.autoload")
else:
    app.conf.imports = ("logged",)
    celery_obs.setup(app)
if "TEST_START_METHOD" in os.environ:
    app.conf.worker_pool_start_method = os.environ["TEST_START_METHOD"]

log = structlog.get_logger("logged")
plain = logging.getLogger("logged.plain")

if os.environ.get("TEST_RECEIVER") == "1":

    @setup_logging.connect
    def set_up_logging(loglevel: int, **_: object) -> None:
        logging.basicConfig(level=loglevel, format="MINE %(name)s %(message)s [%(task)s %(correlation_id)s]")
        logging.getLogger().handlers[0].addFilter(celery_obs.LogFilter())


if os.environ.get("TEST_STRUCTLOG") == "1":
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.format_exc_info,
            *celery_obs.log_processors(),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


@after_setup_logger.connect
def amend(logger: logging.Logger, **_: object) -> None:
    """
    What programs do who only want to add to Celery's logging.
    """
    if os.environ.get("TEST_AMEND") == "1":
        logger.warning("amended")


@app.task
def say(number: int, seconds: float = 0.0) -> int:
    """
    Bind a fact under a name of its own, and say things before and after a while.
    """
    structlog.contextvars.bind_contextvars(**{f"only_{number}": number, "number": number})
    log.info("before", said=number)
    time.sleep(seconds * random.random())
    plain.info("after %d", number)
    return number


@app.task
def gather(numbers: list[int]) -> int:
    log.info("gathered")
    return sum(numbers)


@app.task(bind=True, max_retries=2)
def retry_once(self: Task, number: int) -> int:
    log.info("trying")
    if self.request.retries == 0:
        raise self.retry(exc=ConnectionError("again"), countdown=0)
    return number


@app.task(throws=(LookupError,))
def fail_expectedly() -> None:
    raise LookupError("on purpose")


@app.task
def fail() -> None:
    time.sleep(0)
    raise ValueError("on purpose")


@app.task
def note(failed: str) -> None:
    log.info("noted", failed=failed)


@app.task
def run_another_eagerly() -> None:
    structlog.contextvars.bind_contextvars(outer="kept")
    say.apply(args=(77,))
    log.info("after_eager")


@app.task(time_limit=1)
def exceed_hard_limit() -> None:
    time.sleep(60)


@app.task
def who_am_i() -> str | None:
    return celery_obs.correlation_id()


@app.task(name="logged.hide")
def hide(secret: str, token: str = "") -> dict[str, str]:
    """
    Handle a secret in every way in which programs do.
    """
    print(f"printed password={secret}")  # noqa: T201 -- what programs do.
    log.warning("hid", api_key=secret, nested={"headers": {"Authorization": f"Bearer {secret}"}}, url=f"redis://:{secret}@host")
    plain.error("GET https://x.example/?access_token=%s", secret, extra={"credentials": secret})
    structlog.contextvars.bind_contextvars(session_token=secret)
    return {"result": secret}


@app.task
def fail_with_secret(secret: str) -> None:
    raise RuntimeError(f"cannot reach amqp://user:{secret}@host: client_secret={secret}")


def publish_everything(secret: str) -> list[str]:
    """
    Publish a chain with a retry, a chord, and what fails, all from here; return the ids of the roots.
    """
    return [
        chain(say.s(1), retry_once.s(), say.si(2))().id,
        chord([say.s(3), say.s(4)], gather.s())().id,
        fail.apply_async(link_error=note.s()).id,
        fail_expectedly.delay().id,
        run_another_eagerly.delay().id,
        hide.delay(secret, token=secret).id,
        fail_with_secret.delay(secret).id,
        *(say.delay(number, 0.05).id for number in range(10, 30)),
    ]
