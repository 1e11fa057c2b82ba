"""
Error reports: what it costs a task that raises nothing to be ready to report.

Celery's own tracer runs a task that does nothing, as in `hooks`, bare, under sentry-sdk's own integration, and under ours in both modes.
No report is made, so none is sent.
"""

from __future__ import annotations

import contextlib
import time

from collections.abc import Callable, Iterator
from typing import Any, Final

import celery

from celery import signals
from celery.app import trace as tracing

from celery_obs.runtime.apps import Apps
from celery_obs.runtime.hub import Hub
from celery_obs.runtime.observers import Observers
from celery_obs.runtime.publishing import Publishing
from celery_obs.runtime.signals import Receivers, connect, disconnect
from celery_obs.runtime.translate import QueueNames
from celery_obs.settings import Settings, load
from celery_obs.telemetry.errors.observer import ErrorObserver
from celery_obs.telemetry.errors.sentry import Sentry

from . import stack
from .harness import Limit, Report, in_turns
from .hooks import MICRO, TASK, request


NOWHERE: Final = "http://key@127.0.0.1:9/1"


def measure(*, quick: bool) -> Report:
    """
    Measure every variant, each on a tracer of its own kind.
    """
    app = celery.Celery("bench", broker="memory://", set_as_current=True)
    for name in ("bare", "observed"):
        app.task(name=f"{TASK}.{name}", ignore_result=True)(_noop)
    app.finalize()
    bare = tracing.build_tracer(f"{TASK}.bare", app.tasks[f"{TASK}.bare"], app=app)
    full, light = _Ours("full"), _Ours("light")
    # sentry-sdk has replaced what builds tracers by now.
    patched = tracing.build_tracer(f"{TASK}.observed", app.tasks[f"{TASK}.observed"], app=app)
    own = _own_client()
    batch, rounds = (100, 3) if quick else (1000, 60)
    variants: dict[str, Callable[[], float]] = {
        "bare": _timed(bare, _without_client, batch),
        "sentry-sdk's own integration": _timed(patched, lambda: _with_client(own), batch),
        "sentry-sdk's own, and two empty receivers": _timed(patched, lambda: _with_receivers(own), batch),
        "celery_obs, full": _timed(patched, full.connected, batch),
        "celery_obs, light": _timed(bare, light.connected, batch),
    }
    taken = in_turns(variants, rounds=rounds)
    base, theirs, empty = "bare", "sentry-sdk's own integration", "sentry-sdk's own, and two empty receivers"
    unit = taken.above(theirs, base)
    return Report(
        name="errors",
        title="a traced no-op task, ready to report errors, over the memory transport",
        columns=("variant", "task, median µs", "task, min µs", "added, median µs", "added, min µs", "times sentry-sdk's own"),
        rows=[taken.costs(name, base=base, unit=unit) for name in variants],
        limits=[
            Limit(
                what="full mode, over sentry-sdk's own integration", measured=taken.above("celery_obs, full", theirs), bound=20.0, unit="µs"
            ),
            Limit(
                what="light mode, as a part of what sentry-sdk's own integration adds",
                measured=taken.above("celery_obs, light", base) / unit,
                bound=0.25,
                unit="times",
            ),
        ],
        notes=[
            f"{rounds} rounds of {batch} tasks a variant; nothing raised, nothing sent.",
            (
                "Ours include Celery's dispatch of two signals, which our other observers share: "
                f"with two empty receivers sentry-sdk's own takes {taken.above(empty, theirs):.1f} µs more."
            ),
        ],
        samples=taken.taken,
    )


def _noop() -> None:
    """
    Do nothing, so that what is around it shows.
    """


class _Ours:
    """
    A client of ours and what hears of attempts, to have and not to have.
    """

    def __init__(self, mode: str) -> None:
        import sentry_sdk

        settings: Settings = load({}, {}, {"sentry_dsn": NOWHERE, "sentry_mode": mode, "metrics_dir": "/nowhere"})
        self._sentry = Sentry(settings, environ={}, dropped=lambda _: None, failed=_fail)
        sentry_sdk.get_global_scope().set_client(None)
        self._sentry.start()
        self._client = self._sentry.client()
        hub = Hub(on_error=stack.raise_error)
        Observers(hub).connect([], [ErrorObserver(self._sentry)])
        self._receivers = Receivers(hub, queues=QueueNames(list), lifecycle=stack.NoLifecycle(), publishing=Publishing(hub, Apps()))

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """
        Be the one that reports for a while.
        """
        connect(self._receivers)
        try:
            with _with_client(self._client):
                yield
        finally:
            disconnect()


def _fail(error: Exception) -> None:
    raise SystemExit(1) from error


def _own_client() -> Any:
    """
    Return a client as a program makes it that reports errors and nothing else.
    """
    import sentry_sdk

    from sentry_sdk.integrations.celery import CeleryIntegration

    sentry_sdk.init(dsn=NOWHERE, integrations=[CeleryIntegration()])
    return sentry_sdk.get_client()


@contextlib.contextmanager
def _with_client(client: Any) -> Iterator[None]:
    import sentry_sdk

    scope = sentry_sdk.get_global_scope()
    before = scope.client
    scope.set_client(client)
    try:
        yield
    finally:
        scope.set_client(before)


@contextlib.contextmanager
def _with_receivers(client: Any) -> Iterator[None]:
    with _with_client(client), stack.empty_pair(signals.task_prerun, signals.task_postrun):
        yield


def _without_client() -> Any:
    return _with_client(None)


def _timed(trace: Any, connected: Callable[[], Any], batch: int) -> Callable[[], float]:
    """
    Return what measures one batch, in microseconds a task.
    """

    def run() -> float:
        requests = [request(number, time.time() - 0.02) for number in range(batch)]
        with connected():
            began = time.perf_counter()
            for facts in requests:
                trace(facts["id"], (), {}, facts)
            return (time.perf_counter() - began) / batch * MICRO

    return run
