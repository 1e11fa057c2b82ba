"""
The queues of the broker: how much waits, how long, and who listens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from celery_obs.clock import Clock, wall
from celery_obs.exporter.discovery import QueueNames
from celery_obs.exporter.exposition import Page, family, render
from celery_obs.exporter.probes import QueueProbe, QueueReading
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.vocabulary import queues as vocabulary


__all__ = ["QueuesCollector", "page_of"]


class QueuesCollector:
    """
    Asks a probe about every queue that is known by name.

    Args:
        probe: The broker.

        names: Which queues there are.

        errors: Where a failed look for names is counted; the names known before are used then.
    """

    name: Final = "queues"
    shared: Final = True

    def __init__(self, probe: QueueProbe, names: QueueNames, *, errors: InternalErrors, clock: Clock = wall) -> None:
        self._probe = probe
        self._names = names
        self._errors = errors
        self._clock = clock

    def collect(self) -> Page:
        """
        Read all queues; raises what the broker's client raises.
        """
        self._refresh()
        return page_of(self._probe.probe(self._names.names()), now=self._clock())

    def _refresh(self) -> None:
        try:
            self._names.refresh()
        except Exception:  # noqa: BLE001 -- announcements may live elsewhere than the broker, which can be well.
            self._errors.count("discovery")


def page_of(readings: Mapping[str, QueueReading], *, now: float) -> Page:
    """
    Write *readings* down; a number that is not known has no sample.
    """
    by_name = sorted(readings.items())
    return render(
        [
            family(vocabulary.DEPTH, (((queue,), reading.depth) for queue, reading in by_name)),
            family(
                vocabulary.PRIORITY_DEPTH,
                (((queue, str(step)), depth) for queue, reading in by_name for step, depth in (reading.by_priority or {}).items()),
            ),
            family(vocabulary.UNACKED, (((queue,), reading.unacked) for queue, reading in by_name if reading.unacked is not None)),
            family(vocabulary.CONSUMERS, (((queue,), reading.consumers) for queue, reading in by_name if reading.consumers is not None)),
            family(
                vocabulary.OLDEST_MESSAGE_AGE,
                (((queue,), max(0.0, now - reading.oldest_due_at)) for queue, reading in by_name if reading.oldest_due_at is not None),
            ),
        ]
    )
