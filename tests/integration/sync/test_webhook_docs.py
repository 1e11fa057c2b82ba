"""
The page about webhooks: each of its examples is run, in its framework.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from redis import Redis

from celery_obs.hub import Hub
from celery_obs.settings import Settings
from celery_obs.sync import engine
from celery_obs.testing import RaisingErrors
from celery_obs.vocabulary.webhooks import WebhookProcessed
from tests.servers import RedisServer


pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "receive-webhooks.md"
EVENT = {"id": "evt-1", "type": "reservation_created"}

Post = Callable[[bytes, "str | None"], int]
"""
Sends a body with a signature to ``/webhooks/airbnb``, and returns the status.
"""


class Served(NamedTuple):
    """
    An example, in service.
    """

    post: Post
    booked: list[Any]
    failures: list[Exception]
    outcomes: list[tuple[str, str, str]]


def example(framework: str) -> str:
    """
    Return the page's example for *framework*.
    """
    (found,) = re.findall(rf"```python\n# {framework}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(found)


def signed(body: bytes) -> str:
    """
    Sign as the channel does.
    """
    return "sha256=" + hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()


def headers_of(signature: str | None) -> dict[str, str]:
    """
    Put the signature where the examples look for it.
    """
    return {"X-Signature": signature} if signature else {}


def serve_fastapi(namespace: dict[str, Any]) -> Post:
    """
    Post to a FastAPI app, through ASGI.
    """
    import asyncio

    import httpx

    def post(body: bytes, signature: str | None) -> int:
        async def ask() -> int:
            transport = httpx.ASGITransport(namespace["app"], raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return (await client.post("/webhooks/airbnb", content=body, headers=headers_of(signature))).status_code

        return asyncio.run(ask())

    return post


def serve_flask(namespace: dict[str, Any]) -> Post:
    """
    Post to a Flask app, through WSGI.
    """

    def post(body: bytes, signature: str | None) -> int:
        return int(namespace["app"].test_client().post("/webhooks/airbnb", data=body, headers=headers_of(signature)).status_code)

    return post


def serve_django(namespace: dict[str, Any]) -> Post:
    """
    Post to a Django URL conf, through its test client.
    """
    from types import ModuleType

    import django

    from django.conf import settings
    from django.test import Client, override_settings

    if not settings.configured:
        settings.configure(SECRET_KEY="x", ALLOWED_HOSTS=["testserver"], LOGGING_CONFIG=None, USE_TZ=True)
        django.setup()
    urls = ModuleType("urls")
    vars(urls).update(namespace)

    def post(body: bytes, signature: str | None) -> int:
        with override_settings(ROOT_URLCONF=urls):
            client = Client(raise_request_exception=False)
            return int(client.post("/webhooks/airbnb", body, content_type="application/json", headers=headers_of(signature)).status_code)

    return post


SERVERS = {"fastapi": serve_fastapi, "flask": serve_flask, "django": serve_django}


@pytest.fixture(params=list(SERVERS))
def served(request: pytest.FixtureRequest, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """
    Each example in turn, with an engine on an empty Redis.
    """
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
    outcomes: list[tuple[str, str, str]] = []
    booked: list[Any] = []
    failures: list[Exception] = []

    def book(event: object) -> None:
        if failures:
            raise failures.pop()
        booked.append(event)

    hub = Hub(on_error=RaisingErrors())
    hub.subscribe(WebhookProcessed, lambda event: outcomes.append((event.channel_type, event.event_type, event.status)))
    made = engine.Engine(hub=hub, settings=Settings(metrics_dir=Path("/nonexistent"), redis_url=redis_server.url))
    engine.connect(lambda: made)
    monkeypatch.setenv("CHANNEL_SECRET", "s3cret")
    namespace: dict[str, Any] = {"__name__": "example", "book": book}
    exec(compile(example(request.param), str(PAGE), "exec", dont_inherit=True), namespace)  # noqa: S102 -- our own page.
    try:
        yield Served(SERVERS[request.param](namespace), booked, failures, outcomes)
    finally:
        engine.disconnect()
        assert made.redis is not None
        made.redis.close()


def test_an_event_that_comes_twice_is_booked_once(served: Served) -> None:
    """
    Both are answered with success.
    """
    body = json.dumps(EVENT).encode()

    assert [204, 204] == [served.post(body, signed(body)) for _ in range(2)]

    assert [EVENT] == served.booked
    assert ["success", "duplicate"] == [status for _, _, status in served.outcomes]
    assert ("airbnb", "reservation_created", "success") == served.outcomes[0]


def test_a_stranger_is_refused(served: Served) -> None:
    """
    With a wrong signature as with none.
    """
    assert [401, 401] == [served.post(json.dumps(EVENT).encode(), signature) for signature in ("00" * 32, None)]

    assert [] == served.booked
    assert [("airbnb", "unverified", "invalid_signature")] * 2 == served.outcomes


def test_a_body_of_fifty_megabytes_is_refused(served: Served) -> None:
    """
    Before anybody hashes or parses it.
    """
    assert 413 == served.post(b"x" * 50_000_000, "00" * 32)

    assert [("airbnb", "unverified", "error")] == served.outcomes


def test_an_event_whose_booking_failed_is_booked_when_it_comes_again(served: Served) -> None:
    """
    The channel is told, sends again, and nothing is lost.
    """
    body = json.dumps(EVENT).encode()
    served.failures.append(RuntimeError("no room"))

    assert 500 == served.post(body, signed(body))
    assert 204 == served.post(body, signed(body))

    assert [EVENT] == served.booked
    assert ["error", "success"] == [status for _, _, status in served.outcomes]
