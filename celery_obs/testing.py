"""
For your own tests: hear our events, hold the clock, read what was recorded.

::

    def test_the_sync_is_seen(tmp_path):
        with celery_obs.testing.capture_events(TaskFinished) as events:
            sync.apply_async().get()
        assert [event.state for event in events] == ["success"]

Since 0.1.
"""

from __future__ import annotations

import contextlib

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from celery_obs.exceptions import CeleryObsError
from celery_obs.metrics.format import node_name
from celery_obs.metrics.slots import Node
from celery_obs.vocabulary.spec import Metric


__all__ = ["FakeClock", "RaisingErrors", "capture_events", "counters"]


class FakeClock:
    """
    A clock that stands until it is told to go on.

    Args:
        now: Seconds since the epoch.
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """
        Tell the time.
        """
        return self.now

    def advance(self, seconds: float) -> None:
        """
        Let time pass.
        """
        self.now += seconds


class RaisingErrors:
    """
    An ``on_error`` for a hub under test: what would be kept from a program in production is raised.
    """

    def __call__(self, error: Exception, *, component: str) -> None:
        """
        Raise *error*.
        """
        raise error


@contextlib.contextmanager
def capture_events(*types: type) -> Iterator[list[Any]]:
    """
    Gather the events of *types* that happen in this process, in order.

    Raises:
        CeleryObsError: if `celery_obs.setup` was not called.
    """
    from celery_obs.plugin import plugin  # noqa: PLC0415 -- users of the clock alone need no Celery.

    found = plugin()
    if found is None:
        message = "capture_events() hears nothing before celery_obs.setup(app). Call that first."
        raise CeleryObsError(message)
    events: list[Any] = []
    for event_type in types:
        found.hub.subscribe(event_type, events.append)
    try:
        yield events
    finally:
        for event_type in types:
            found.hub.unsubscribe(event_type, events.append)


def counters(metrics_dir: Path) -> Mapping[tuple[str, tuple[str, ...]], int]:
    """
    Return what was counted into the metric files below *metrics_dir* so far: by name and label values, in steps of the metric's resolution.

    Zeros are left out.
    """
    totals: dict[tuple[str, tuple[str, ...]], int] = {}
    for folder in metrics_dir.iterdir():
        name = node_name(folder.name)
        if name is not None:
            for metric, values, count in _counts(metrics_dir, name):
                key = (metric.name, values)
                totals[key] = totals.get(key, 0) + count
    return {key: count for key, count in totals.items() if count}


def _counts(metrics_dir: Path, name: str) -> Iterator[tuple[Metric, tuple[str, ...], int]]:
    node = Node(metrics_dir, name, gauges=0)
    try:
        for slot in node.others(None):
            for series in node.layout:
                if series.family.kind == "counter" and series.at < slot.lanes:
                    yield series.family, series.values, int(slot.words[slot.lanes_at + series.at])
    finally:
        node.close()
