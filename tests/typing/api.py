"""
The public face as a user's type checker sees it: checked by mypy, never executed.
"""

from __future__ import annotations

import logging

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import httpx

from celery import Celery

import celery_obs

from celery_obs.areas.channels.api_calls.api import HttpxTransport
from celery_obs.areas.channels.api_calls.metrics import ErrorType
from celery_obs.areas.tasks.events import TaskFinished
from celery_obs.metrics import Counter, Gauge, Histogram
from celery_obs.testing import FakeClock, capture_events, counters


app = Celery("proj")
celery_obs.setup(app)
celery_obs.setup(app, metrics_dir="/run/celery_obs", label_limit=50)

BOOKINGS: Counter = celery_obs.metrics.counter("bookings_total", "Who sells?", labels=["channel"])
OPEN: Gauge = celery_obs.metrics.gauge("open_orders", "What is open?", aggregate="mostrecent")
SIZE: Histogram = celery_obs.metrics.histogram("batch_size", "How many at once?", buckets=(1, 10), resolution=1)

BOOKINGS.inc(channel="airbnb")
OPEN.set(3)
OPEN.dec()
SIZE.observe(7.5)

with celery_obs.sync_run("airbnb", "availability_export", "outbound", connection_id="c-1") as run:
    run.created(3)
    run.records(updated=1, failed=2)
    run.skip("nothing to do")
    run.fail(ValueError("no"))

with celery_obs.circuit_breaker.guard("airbnb"):
    celery_obs.rate_limiter.acquire("airbnb", "c-1", wait=2.5)
    seconds: float = celery_obs.rate_limiter.check("airbnb", "c-1")


@celery_obs.circuit_breaker.guarded("airbnb")
def push(prices: int) -> str:
    """
    Call a channel.
    """
    return str(prices)


pushed: str = push(3)
permit: celery_obs.circuit_breaker.Permit = celery_obs.circuit_breaker.allow("airbnb")
celery_obs.circuit_breaker.record(permit, ok=True)
celery_obs.circuit_breaker.registry.get_breaker("airbnb").force_open(seconds=60, actor="ada")

result = celery_obs.SyncResult(created=1, status="partial")


with celery_obs.api_call("airbnb", "/listings/{id}", "GET", connection_id="c-1", wait=2.0) as call:
    call.response(200, headers={"Retry-After": "7"})
    call.raise_for_status()

client = httpx.Client(transport=HttpxTransport("airbnb", connection_id="c-1", wait=5.0))
celery_obs.register_client_error("acme.errors.Busy", "rate_limit")
celery_obs.register_client_error(LookupError, {"status": "answer.code"})


async def ask() -> float | None:
    async with celery_obs.api_call("airbnb", "/listings/{id}", "GET") as later:
        later.response(200, headers={"X-RateLimit-Remaining": "7"})
    return later.rate_limit.reset_after


kind: ErrorType | None = celery_obs.classify(TimeoutError())


@app.task(base=celery_obs.SyncTask, channel_type="airbnb", **celery_obs.retry_policy("critical", max_retries=7))  # type: ignore[untyped-decorator]  # Celery's.
def export(connection_id: str) -> celery_obs.SyncResult:
    return celery_obs.SyncResult(updated=1)


token = celery_obs.tokens.Token(access_token="a", refresh_token="r", expires_at=1e9, extra={"hotel": 7})
celery_obs.tokens.store("conn-1", token)
found: celery_obs.tokens.Token | None = celery_obs.tokens.get("conn-1")
found = celery_obs.tokens.get("conn-1", fresh_for=60)
token = celery_obs.tokens.from_answer("airbnb", {"access_token": "a"})
provider = celery_obs.tokens.Provider(name="acme", dead=("grant.*",))
expiry: float | None = celery_obs.tokens.refresh("conn-1", force=True).expires_at
unreadable: tuple[str, ...] = celery_obs.tokens.rotate().unreadable


class Shelf:
    """
    A token source of one's own.
    """

    def get(self, connection_id: str) -> celery_obs.tokens.Token | None:
        return None

    def put(self, connection_id: str, token: celery_obs.tokens.Token) -> None:
        """
        Keep it.
        """


source: celery_obs.tokens.TokenSource = Shelf()


class Table(Shelf):
    """
    One that compares.
    """

    def read(self, connection_id: str) -> tuple[celery_obs.tokens.Token, int] | None:
        return None

    def replace(self, connection_id: str, token: celery_obs.tokens.Token, version: int) -> bool:
        return True


versioned: celery_obs.tokens.VersionedTokenSource = Table()

celery_obs.register_connection("account-1", "airbnb", status="active", created_at=1.0, url_parameters={"shop": "acme"})
celery_obs.set_connection_status("account-1", "paused")
celery_obs.forget_connection("account-1")
celery_obs.conflict_detected("availability_mismatch", "airbnb")
celery_obs.conflict_resolved("availability_mismatch", "local_wins")
celery_obs.requires_review("availability_mismatch")
celery_obs.reviewed("availability_mismatch", 2)
celery_obs.double_booking("airbnb")


with celery_obs.correlate("req-1"):
    correlation: str | None = celery_obs.correlation_id()
logging.getLogger().addFilter(celery_obs.LogFilter(redact_keys=["card_pin"]))
processors = [*celery_obs.log_processors(redact_keys=("card_pin",))]


class Accounts:
    def connections(self) -> Iterator[celery_obs.Connection]:
        yield celery_obs.Connection("account-1", "airbnb", created_at=None)


class Calendar:
    def local(self, connection_id: str, start: date, end: date) -> list[tuple[date, int]]:
        return [(start, 1)]

    def remote(self, connection_id: str, start: date, end: date) -> Iterator[tuple[date, int] | celery_obs.Unknown]:
        yield from celery_obs.by_windows(lambda first, last: [(first, 2)], start, end, days=90)
        yield celery_obs.Unknown(end, date.max)

    def timezone(self, connection_id: str) -> str:
        return "Pacific/Auckland"


accounts: celery_obs.ConnectionSource = Accounts()
calendar: celery_obs.ReconciliationSource = Calendar()
reconciled: celery_obs.Reconciled = celery_obs.reconcile("account-1")
drifted: int = reconciled.drifted
app.conf.beat_schedule = {**celery_obs.beat.schedule(check_drift=3600, sweep_state=None)}


clock = FakeClock()
now: float = clock()

with capture_events(TaskFinished) as events:
    states = [event.state for event in events]

with celery_obs.webhook("airbnb", "reservation_created") as hook:
    hook.verify(b"{}", None, secret=["new", "old"], tolerance=300)
    is_new: bool = hook.once("evt-1") and hook.newest("booking-7", at=1_800_000_000)
after_commit: list[Callable[[], None]] = []
with celery_obs.webhook("airbnb", on_commit=after_commit.append) as hook:
    event_id: str = hook.verify_as("svix", b"{}", {"svix-id": "msg_1"}, secret=["whsec_AAAA"]).event_id

total: int = sum(counters(Path("/run/celery_obs")).values())
version: str = celery_obs.__version__
celery_obs.teardown()
