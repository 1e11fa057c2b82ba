"""
What tests of reports share: a Sentry of their own, and no client left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import sentry_sdk

from celery_obs.settings import load
from celery_obs.telemetry.errors.observer import ErrorObserver
from celery_obs.telemetry.errors.sentry import Sentry
from tests.sentry import SentryServer


class Reporting(NamedTuple):
    """
    A client that reports to an endpoint of the test's.
    """

    sentry: Sentry
    observer: ErrorObserver
    endpoint: SentryServer
    dropped: list[int]
    failed: list[Exception]


Make = Callable[..., Reporting]


@pytest.fixture
def make() -> Iterator[Make]:
    """
    Start a client with settings of the test's.
    """
    made: list[Reporting] = []
    with SentryServer() as endpoint:

        def start(*, traced: bool = False, environ: dict[str, str] | None = None, **settings: Any) -> Reporting:
            dropped: list[int] = []
            failed: list[Exception] = []
            sentry = Sentry(
                load({}, {}, {"sentry_dsn": endpoint.dsn, "metrics_dir": "/nowhere", **settings}),
                environ=environ or {},
                dropped=dropped.append,
                failed=failed.append,
                traced=traced,
            )
            sentry.start()
            made.append(Reporting(sentry, ErrorObserver(sentry, crons=settings.get("sentry_crons", False)), endpoint, dropped, failed))
            return made[-1]

        try:
            yield start
        finally:
            for each in made:
                each.sentry.stop()
            sentry_sdk.get_global_scope().set_client(None)
