"""
The page about webhooks: each of its examples is run, in its framework.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import re
import time

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from redis import Redis

import celery_obs

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.webhooks.events import WebhookProcessed
from celery_obs.areas.channels.webhooks.schemes import SCHEMES
from celery_obs.runtime.hub import Hub
from celery_obs.settings import Settings
from celery_obs.testing import RaisingErrors
from tests.servers import RedisServer


pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[4] / "docs" / "how-to" / "receive-webhooks.md"
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
    Return the page's example of that name.
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
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "ATOMIC_REQUESTS": True}
        settings.configure(SECRET_KEY="x", ALLOWED_HOSTS=["testserver"], LOGGING_CONFIG=None, USE_TZ=True, DATABASES={"default": database})
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
def served(request: pytest.FixtureRequest, serve: Callable[..., Served]) -> Served:
    """
    Each example in turn.
    """
    return serve(request.param)


@pytest.fixture
def serve(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Served]]:
    """
    Puts an example in service, with an engine on an empty Redis.
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

    def make(framework: str, **names: Any) -> Served:
        namespace: dict[str, Any] = {"__name__": "example", "book": book, **names}
        exec(compile(example(framework), str(PAGE), "exec", dont_inherit=True), namespace)  # noqa: S102 -- our own page.
        return Served(SERVERS[framework](namespace), booked, failures, outcomes)

    try:
        yield make
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
    Before it is hashed or parsed.
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


# --- transactions ---------------------------------------------------------------------------------------------------------------


def test_a_commit_that_fails_after_the_view_makes_the_redelivery_new(serve: Callable[..., Served]) -> None:
    """
    The Django example, with ATOMIC_REQUESTS, a real database, and a constraint that is looked at when the transaction is committed.
    """
    rooms = [99, 1]

    def book(event: dict[str, str]) -> None:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO bookings (event, room) VALUES (%s, %s)", [event["id"], rooms.pop(0)])

    served = serve("django", book=book)
    body = json.dumps(EVENT).encode()
    with bookings() as count:
        assert 500 == served.post(body, signed(body))
        assert 0 == count()

        assert [204, 204] == [served.post(body, signed(body)) for _ in range(2)]

        assert 1 == count()
    assert ["error", "success", "duplicate"] == [status for _, _, status in served.outcomes]


@contextlib.contextmanager
def bookings() -> Iterator[Callable[[], int]]:
    """
    Two tables in the project's database; gives what counts the bookings.
    """
    from django.db import connection

    def count() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM bookings")
            return int(cursor.fetchone()[0])

    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE rooms (id INTEGER PRIMARY KEY)")
        cursor.execute("INSERT INTO rooms VALUES (1)")
        cursor.execute("CREATE TABLE bookings (event TEXT, room INTEGER REFERENCES rooms (id) DEFERRABLE INITIALLY DEFERRED)")
    try:
        yield count
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE bookings")
            cursor.execute("DROP TABLE rooms")


def test_a_session_of_sqlalchemy_settles_what_it_commits(serve: Callable[..., Served], tmp_path: Path) -> None:
    """
    The page's example; the first commit fails, because the booking lacks what the table wants.
    """
    import sqlalchemy as sa

    from sqlalchemy.orm import declarative_base, sessionmaker

    serve("flask")

    base = declarative_base()

    class Booking(base):  # type: ignore[misc,valid-type]  # SQLAlchemy makes it.
        __tablename__ = "bookings"
        event = sa.Column(sa.Text, primary_key=True)

    made = sa.create_engine(f"sqlite:///{tmp_path}/bookings.db")
    namespace: dict[str, Any] = {"__name__": "example", "json": json, "Booking": Booking}
    exec(compile(example("sqlalchemy"), str(PAGE), "exec", dont_inherit=True), namespace)  # noqa: S102 -- our own page.
    body = json.dumps(EVENT).encode()

    def deliver() -> None:
        namespace["handle"]("airbnb", body, headers_of(signed(body)), sessionmaker(made))

    with pytest.raises(sa.exc.OperationalError):
        deliver()  # There is no table yet.
    base.metadata.create_all(made)
    deliver()
    deliver()

    with made.connect() as connection:
        assert [("evt-1",)] == connection.execute(sa.text("SELECT event FROM bookings")).all()
    made.dispose()


def test_a_list_settles_by_hand(serve: Callable[..., Served]) -> None:
    """
    The page's example; the first commit fails.
    """
    served = serve("flask")
    commits = iter([RuntimeError("away"), None])

    class Connection:
        def commit(self) -> None:
            error = next(commits)
            if error is not None:
                raise error

    namespace: dict[str, Any] = {"__name__": "example", "webhook": celery_obs.webhook, "book": lambda _, event: served.booked.append(event)}
    exec(compile(example("by hand"), str(PAGE), "exec", dont_inherit=True), namespace)  # noqa: S102 -- our own page.

    with pytest.raises(RuntimeError):
        namespace["handle"]("airbnb", [EVENT], Connection())
    namespace["handle"]("airbnb", [EVENT], Connection())

    assert 2 == len(served.booked)
    assert ["error", "success"] == [status for _, _, status in served.outcomes]


# --- the rest of the page -------------------------------------------------------------------------------------------------------


def test_the_table_of_schemes_is_that_of_the_code() -> None:
    """
    Each scheme with its header, what is signed, and the document that says so.
    """
    found = re.search(r"<!-- schemes.*?-->\n(.*?)\n<!-- /schemes -->", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None

    expected = [
        f"| `{each.name}` | `{each.signature[0]}` | {' + '.join(f'`{piece}`' for piece in each.signed)} | {each.document} |"
        for each in SCHEMES.values()
    ]
    assert expected == found[1].splitlines()[2:]


def test_the_short_examples_run(serve: Callable[..., Served]) -> None:
    """
    A scheme by its name, one of one's own, and events in their order.
    """
    served = serve("flask")
    body = json.dumps({**EVENT, "booking": "b-7", "occurred_at": "2027-01-15T08:00:00Z"}).encode()
    stamp = str(int(time.time()))
    digest = hmac.new(b"s3cret", stamp.encode() + b"." + body, hashlib.sha256).digest()
    request = SimpleNamespace(headers={"Stripe-Signature": f"t={stamp},v1={digest.hex()}"})
    names = {"celery_obs": celery_obs, "body": body, "request": request, "NEW_SECRET": "new", "OLD_SECRET": "s3cret"}
    namespace: dict[str, Any] = {"__name__": "example", "book": served.booked.append, "event": json.loads(body), **names}

    for name in ("a scheme", "a scheme of your own"):
        exec(compile(example(name), str(PAGE), "exec", dont_inherit=True), namespace)  # noqa: S102 -- our own page.
    with celery_obs.webhook("acme") as hook:
        headers = {"X-Acme-Signature": base64.b64encode(digest).decode(), "X-Acme-Time": stamp}
        assert float(stamp) == hook.verify_as(namespace["ACME"], body, headers, secret="s3cret").at
        exec(compile(example("in order"), str(PAGE), "exec", dont_inherit=True), {**namespace, "hook": hook})  # noqa: S102 -- our own page.

    assert 1 == len(served.booked)
