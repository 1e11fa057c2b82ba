"""
The queues of a broker: how much waits, how long, and who listens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from celery_obs.clock import Clock, wall
from celery_obs.exceptions import ConfigurationError
from celery_obs.exporter.discovery import Discovery, QueueNames
from celery_obs.exporter.exposition import Page, family, render
from celery_obs.exporter.options import Sidecar
from celery_obs.exporter.probes import QueueProbe, QueueReading, probe_for
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.vocabulary.spec import Metric

from . import metrics as vocabulary


__all__ = ["QueuesCollector", "collectors", "page_of"]


def collectors(sidecar: Sidecar) -> Iterator[QueuesCollector]:
    """
    Make a collector for each broker, so that each fails for itself.

    Raises:
        ConfigurationError: if a broker cannot be used, or two have the same host and database.
    """
    options = sidecar.options
    if not options.serves_cluster:
        return
    brokers = {broker.name: broker for broker in options.brokers}
    if len(brokers) < len(options.brokers):
        message = (
            f"Two of the brokers have the same host and database: {', '.join(sorted(b.name for b in options.brokers))}. Expected each once."
        )
        raise ConfigurationError(message)
    for name, broker in brokers.items():
        # What a Redis broker's workers announce, they announce there, unless they were told another place.
        place = options.redis_url or options.shared or (broker if broker.is_redis else options.state)
        client = sidecar.redis(place) if place else None
        others = brokers.keys() - {name}
        names = Discovery(options.queues, client=client, broker=name, others=others)
        probe = probe_for(broker, announced=names.announced)
        yield QueuesCollector(probe, names, errors=sidecar.errors, broker=name if others else "")


class QueuesCollector:
    """
    Asks a probe about every queue that is known by name.

    Args:
        probe: The broker.

        names: Which queues there are.

        errors: Where a failed look for names is counted; the names known before are used then.

        broker: Its name, the value of the label ``broker``; empty where it is the only one, and there is no such label.
    """

    shared: Final = True

    def __init__(self, probe: QueueProbe, names: QueueNames, *, errors: InternalErrors, broker: str = "", clock: Clock = wall) -> None:
        self.name = f"queues:{broker}" if broker else "queues"
        self._broker = broker
        self._probe = probe
        self._names = names
        self._errors = errors
        self._clock = clock

    def collect(self) -> Page:
        """
        Read all queues; raises what the broker's client raises.
        """
        self._refresh()
        readings = self._probe.probe(self._names.names())
        return page_of(_shown(readings, self._names), now=self._clock(), broker=self._broker)

    def _refresh(self) -> None:
        try:
            self._names.refresh()
        except Exception:  # noqa: BLE001 -- announcements may live elsewhere than the broker, which can be well.
            self._errors.count("discovery")


def _shown(readings: Mapping[str, QueueReading], names: QueueNames) -> dict[str, QueueReading]:
    """
    Leave out what nothing announces any more and is empty, or lived no longer than its consumer; add up what shares a label value.
    """
    shown: dict[str, QueueReading] = {}
    for queue, reading in readings.items():
        label = names.label(queue)
        holds = label == queue and (reading.depth or reading.unacked)
        if holds or names.is_current(queue):
            shown[label] = _sum(shown[label], reading) if label in shown else reading
    return shown


def _sum(one: QueueReading, other: QueueReading) -> QueueReading:
    return replace(
        one,
        depth=one.depth + other.depth,
        by_priority=None if one.by_priority is None else dict(Counter(one.by_priority) + Counter(other.by_priority or {})),
        unacked=_known(sum, one.unacked, other.unacked),
        consumers=_known(sum, one.consumers, other.consumers),
        oldest_due_at=_known(min, one.oldest_due_at, other.oldest_due_at),
    )


def _known(combine: Any, *values: Any) -> Any:
    known = [value for value in values if value is not None]
    return combine(known) if known else None


def page_of(readings: Mapping[str, QueueReading], *, now: float, broker: str = "") -> Page:
    """
    Write *readings* down; a number that is not known has no sample.

    Args:
        broker: The value of the label ``broker``; without one there is no such label.
    """
    by_name = sorted(readings.items())

    def written(metric: Metric, samples: Iterable[tuple[tuple[str, ...], float]]) -> Any:
        if not broker:
            return family(metric, samples)
        return family(replace(metric, labels=(*metric.labels, "broker")), (((*values, broker), value) for values, value in samples))

    return render(
        [
            written(vocabulary.DEPTH, (((queue,), reading.depth) for queue, reading in by_name)),
            written(
                vocabulary.PRIORITY_DEPTH,
                (((queue, str(step)), depth) for queue, reading in by_name for step, depth in (reading.by_priority or {}).items()),
            ),
            written(vocabulary.UNACKED, (((queue,), reading.unacked) for queue, reading in by_name if reading.unacked is not None)),
            written(vocabulary.CONSUMERS, (((queue,), reading.consumers) for queue, reading in by_name if reading.consumers is not None)),
            written(
                vocabulary.OLDEST_MESSAGE_AGE,
                (((queue,), max(0.0, now - reading.oldest_due_at)) for queue, reading in by_name if reading.oldest_due_at is not None),
            ),
        ]
    )
