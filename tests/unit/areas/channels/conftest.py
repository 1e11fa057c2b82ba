"""
What the tests of the sync engine share: an engine that tells what it hears.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.api_calls.events import ApiCallFinished, EndpointFolded
from celery_obs.areas.channels.connections.events import ConnectionErrored
from celery_obs.areas.channels.syncs.events import SyncFinished, SyncHeldBack, SyncStarted
from celery_obs.areas.sidecar.events import ObservationDropped
from celery_obs.runtime.hub import Hub
from celery_obs.settings import Settings
from celery_obs.testing import FakeClock, RaisingErrors


@pytest.fixture
def clock() -> FakeClock:
    """
    The engine's clock.
    """
    return FakeClock(1000.0)


@pytest.fixture
def heard(clock: FakeClock, tmp_path: Path) -> Iterator[list[Any]]:
    """
    All events of syncs and calls, in the order in which they happened, in a process without Redis.
    """
    events: list[Any] = []
    hub = Hub(on_error=RaisingErrors())
    for event_type in (SyncStarted, SyncFinished, SyncHeldBack, ApiCallFinished, EndpointFolded, ConnectionErrored, ObservationDropped):
        hub.subscribe(event_type, events.append)
    made = engine.Engine(hub=hub, settings=Settings(metrics_dir=tmp_path), clock=clock)
    engine.connect(lambda: made)
    yield events
    engine.disconnect()
