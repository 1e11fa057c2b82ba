"""
An app full of secrets: each is a *canary*, planted where people's secrets are.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import time
import urllib.error
import urllib.parse
import urllib.request

from dataclasses import dataclass

import kombu
import redis
import structlog
import yaml

from authlib.integrations.base_client import OAuthError
from celery import Celery, Task
from celery.exceptions import Ignore
from celery.utils.log import get_task_logger
from planting import canary, jwt  # type: ignore[import-not-found]  # Beside this file, where the worker looks for modules.
from redis.sentinel import Sentinel

import celery_obs


app = Celery("canaries", broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_BROKER"])
app.conf.update(
    task_default_queue="work",
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    said=canary("said aloud"),
    celery_obs={
        "sentry_dsn": os.environ["TEST_DSN"],
        "redis_url": os.environ["TEST_STATE"],
        "token_keys": [base64.urlsafe_b64encode(canary("setting token_keys").ljust(32, "x").encode()).decode()],
        "oauth_clients": {
            "airbnb": {
                "client_id": "shop",
                "client_secret": canary("setting oauth_clients"),
                "token_url": "https://localhost/token",
            }
        },
    },
)
celery_obs.setup(app)

log = logging.getLogger("canaries")
task_log = get_task_logger(__name__)
words = structlog.get_logger("canaries")


@dataclass
class Credentials:
    """
    What people keep their secrets in, with a representation that tells them.
    """

    user: str
    password: str


@app.task
def control(word: str) -> None:
    """
    Say a word aloud wherever one can: what the test finds nowhere it cannot miss.
    """
    log.warning("the word is %s", word)
    celery_obs.metrics.counter("words_total", "Which words?", labels=["word"]).inc(word=word)
    said = word
    raise RuntimeError(f"I said {said}")


@app.task
def succeed(*args: object, **kwargs: object) -> object:
    return {"anything": kwargs.get("answer"), "token": kwargs.get("token")}


@app.task
def follow(result: object, *args: object) -> object:
    return result


@app.task(bind=True, max_retries=1)
def retry(self: Task, order: str, **kwargs: object) -> None:
    if self.request.retries == 0:
        raise self.retry(exc=ConnectionError(f"401 for api_key={canary('reason of a retry')}"), countdown=0)


@app.task
def ignore(order: str) -> None:
    raise Ignore(f"password={canary('ignored')}")


@app.task(time_limit=1)
def hang(*args: object, **kwargs: object) -> None:
    time.sleep(60)


@app.task
def die(*args: object, **kwargs: object) -> None:
    os.kill(os.getpid(), 9)


@app.task(bind=True)
def write(self: Task, **kwargs: object) -> None:
    """
    Log as people do who are looking for an error late at night.
    """
    log.info("logging in", extra={"password": canary("extra")})
    log.info("logging in", extra={"payload": {"headers": {"Authorization": f"Bearer {canary('nested extra')}"}}})
    log.warning("got token=%s for %s", canary("argument of a log line"), "shop")
    log.warning("connecting to %s", f"postgres://shop:{canary('URL in a log line')}@db.local/shop")
    log.warning("GET https://api.local/v1/rooms?page=2&access_token=%s", canary("query in a log line"))
    log.warning("headers: %r", {"x-api-key": canary("header in a repr"), "cookie": f"session={canary('cookie in a repr')}"})
    log.warning("credentials: %r", Credentials("shop", canary("repr of an object")))
    log.warning("answer: %s", json.dumps({"access_token": canary("OAuth answer"), "refresh_token": canary("OAuth answer, refresh")}))
    log.warning("body: grant_type=refresh_token&refresh_token=%s&client_secret=%s", canary("OAuth body"), canary("OAuth body, client"))
    log.warning("request: %r", self.request)
    log.warning("token %s", jwt("web token"))
    log.warning("key:\n-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----", canary("PEM"))
    task_log.warning("Authorization: Basic %s", base64.b64encode(f"u:{canary('basic auth')}".encode()).decode())
    words.warning("logging in", api_key=canary("key of structlog"), nested=[{"secret": canary("nested key of structlog")}])
    with structlog.contextvars.bound_contextvars(access_token=canary("bound to the context")):
        words.warning("bound")
    print(f"password={canary('printed')}")  # noqa: T201 -- people do.
    try:
        raise ValueError(f"bad password={canary('logged exception')}")
    except ValueError:
        log.exception("cannot log in")


@app.task
def fail(how: str, **kwargs: object) -> None:
    """
    Raise what libraries raise.
    """
    if how == "url":
        raise ConnectionError(f"cannot connect to amqp://shop:{canary('URL in an exception')}@mq.local:5672//")
    if how == "pair":
        raise PermissionError(f"login failed: user=shop password={canary('pair in an exception')}")
    if how == "bearer":
        raise PermissionError(f"401 Unauthorized, sent Authorization: Bearer {canary('bearer in an exception')}")
    if how == "json":
        raise ValueError(f"""400 for {json.dumps({"client_secret": canary("JSON in an exception"), "page": 1})}""")
    if how == "cause":
        try:
            raise KeyError(f"token={canary('cause of an exception')}")
        except KeyError as cause:
            raise RuntimeError("wrapped") from cause
    if how == "locals":
        secret_key = canary("local under a secret name")
        value = canary("local under a secret name")  # The same one under a name that says nothing.
        request = {"headers": {"Authorization": f"Bearer {canary('nested local')}"}, "json": [{"refresh_token": canary("list in a local")}]}
        credentials = Credentials("shop", canary("object in a local"))
        raise RuntimeError(f"{len(secret_key) + len(value)} {len(request)} {bool(credentials)}")
    if how == "breadcrumbs":
        _call_others()


def _call_others() -> None:
    """
    Leave a trail of HTTP calls and log lines, and tell Sentry more than one should.
    """
    import sentry_sdk

    url = f"{os.environ['TEST_HTTP']}/rooms?api_key={canary('query in a breadcrumb')}"
    request = urllib.request.Request(url, headers={"X-Api-Key": canary("header of a request")})  # noqa: S310 -- our own.
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=5):  # noqa: S310
        pass
    with celery_obs.api_call("airbnb", f"/rooms?access_token={canary('endpoint')}", "GET", connection_id="c-1") as call:
        call.response(200)
    sentry_sdk.set_extra("password", canary("extra of Sentry"))
    sentry_sdk.set_context("login", {"token": canary("context of Sentry")})
    sentry_sdk.add_breadcrumb(message=f"password={canary('breadcrumb')}", data={"secret": canary("data of a breadcrumb")})
    raise RuntimeError("with a trail")


@app.task
def ask(what: str) -> None:
    """
    Let a library say itself what was wrong with what it was given.
    """
    if what == "kombu":
        kombu.Connection(f"amqp://shop:{canary('in the place of a port, of kombu')}/more@mq.local:5672//").connect()
    if what == "urlsplit":
        urllib.parse.urlsplit(f"https://shop:{canary('in a netloc')}@\u2100.local/")
    if what == "redis":  # It knows no AUTH, and quotes what it is sent.
        redis.Redis(protocol=2, port=int(os.environ["TEST_DEAF"]), username="shop", password=canary("argument of AUTH")).ping()
    if what == "redis url":
        redis.Redis.from_url(f"redis://shop:{canary('in the place of a port, of redis-py')}/more@cache.local/0")
    if what == "sentinel":
        sentinel = {"password": canary("password of the sentinels, in a task"), "socket_timeout": 1}
        nowhere = [("127.0.0.1", int(os.environ["TEST_DEAF"]))]
        Sentinel(nowhere, sentinel_kwargs=sentinel, password=canary("password of the master")).master_for("mine").ping()
    if what == "oauth":
        raise OAuthError("invalid_client", f"client_secret={canary('OAuth error')}&refresh_token={canary('OAuth error, token')} is wrong")
    if what == "yaml":
        yaml.safe_load(f"password: *{canary('alias of YAML')}")


@app.task(bind=True)
def fail_with(self: Task, api_key: str, **kwargs: object) -> None:
    raise RuntimeError("look at my arguments")


@app.task
def refresh() -> None:
    """
    Refresh a token at a provider that says no, and says what it was sent.
    """
    from celery_obs.areas.channels.errors import AuthError

    body = f"grant_type=refresh_token&refresh_token={canary('refused OAuth body')}&client_id=shop"
    raise AuthError(f"400 Bad Request: {body}")
