"""
The cluster's collector: what all workers share, out of Redis, as one page.
"""

from __future__ import annotations

import logging

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from celery_obs.exporter.exposition import Page
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.recorder.merge import escape_help, labels_text
from celery_obs.throttle import LogThrottle
from celery_obs.vocabulary.spec import OTHER, Metric, is_utf8

from .breakers import metrics as circuit_breaker
from .conflicts.metrics import REVIEW
from .connections import metrics as connections
from .connections.metrics import CREATED_AT, ERROR_COUNT, LAST_SYNC, PAUSED
from .connections.state import Connection
from .overview import Overview
from .rate_limits.metrics import CURRENT, MAX
from .reconciliation.metrics import DRIFT_DAYS, LAST_RUN
from .tokens.metrics import EXPIRES_AT, LIFETIME


__all__ = ["MOST_CONNECTIONS", "ClusterCollector"]


MOST_CONNECTIONS: Final = 20_000
"""
Connections that have series of their own; all others share those of ``_other``.
"""

_LONGEST_LABEL: Final = 500

_Combine = Callable[[float, float], float]
_Texts = dict[str, tuple[str, str]]
"""
By connection id, the channel and the labels as they stand on the page.
"""

log = logging.getLogger("celery_obs.exporter")


class ClusterCollector:
    """
    Show the state that workers and beat tasks put into Redis.

    Args:
        read: Reads it; blocks, and may raise anything.

        folded: Counts, by metric, the series that went to ``_other``: of connections beyond the limit, and of names that are no labels.

        most_connections: How many have series of their own.
    """

    name: Final = "cluster"
    shared: Final = True

    def __init__(self, read: Callable[[], Overview], *, folded: InternalErrors, most_connections: int = MOST_CONNECTIONS) -> None:
        self._read = read
        self._folded = folded
        self._most = most_connections
        self._throttle = LogThrottle()
        self._texts: _Texts = {}

    def collect(self) -> Page:
        """
        Read and write everything.
        """
        overview = self._read()
        known = overview.snapshot.connections
        self._texts = self._texts_of(known)
        folded = len(known) - len(self._texts)
        if folded and self._throttle.allows("folded"):
            shown = f"{folded} of {len(known)} connections"
            log.warning("%s share the series of %s: beyond the first %d, or with an id that is no label.", shown, OTHER, self._most)
        return _page([*self._of_connections(overview), self._of_rate_limits(overview), *self._of_channels(overview)])

    # -- one series per connection --------------------------------------------------------------------------------------

    def _texts_of(self, known: Mapping[str, Connection]) -> _Texts:
        """
        Write the labels of those connections that have series of their own; most were written the last time.
        """
        texts: _Texts = {}
        own = known if len(known) <= self._most else sorted(known)[: self._most]
        for name in own:
            channel = known[name].channel_type
            written = self._texts.get(name)
            if written is not None and written[0] == channel:
                texts[name] = written
            elif _is_label(name):
                texts[name] = (channel, labels_text(_BOTH, (_label(channel), name)))
        return texts

    def _of_connections(self, overview: Overview) -> Iterator[tuple[Metric, list[str]]]:
        """
        Write what each connection has; those that share a series show the worst of theirs.
        """
        snapshot = overview.snapshot
        known, errors, tokens = snapshot.connections, snapshot.errors, snapshot.tokens.items()
        yield self._lines(EXPIRES_AT, overview, {name: each.expires_at for name, each in tokens if each.expires_at is not None}, min)
        yield self._lines(LIFETIME, overview, {name: each.lifetime for name, each in tokens if each.lifetime is not None}, min)
        yield self._lines(LAST_SYNC, overview, snapshot.last_syncs, min)
        yield self._lines(ERROR_COUNT, overview, {name: errors.get(name, 0) for name in known}, max)
        yield self._lines(CREATED_AT, overview, {name: each.created_at for name, each in known.items() if each.created_at is not None}, max)
        yield self._lines(DRIFT_DAYS, overview, {name: each.days for name, each in snapshot.drift.items()}, max)

    def _lines(self, metric: Metric, overview: Overview, values: Mapping[str, float], worst: _Combine) -> tuple[Metric, list[str]]:
        name, texts = metric.name, self._texts
        if len(texts) == len(overview.snapshot.connections):
            return metric, [f"{name}{texts[connection_id][1]} {value!r}" for connection_id, value in values.items()]
        lines = [f"{name}{texts[connection_id][1]} {value!r}" for connection_id, value in values.items() if connection_id in texts]
        shared: dict[tuple[str, ...], float] = {}
        for connection_id, value in values.items():
            if connection_id not in texts:
                _put(shared, (_label(overview.snapshot.connections[connection_id].channel_type), OTHER), value, worst)
        if len(lines) < len(values):
            self._folded.count(name, len(values) - len(lines))
        return metric, [*lines, *_plain(metric, shared)]

    def _of_rate_limits(self, overview: Overview) -> tuple[Metric, list[str]]:
        """
        Write how much of each limit is used, also for connections that are not registered.
        """
        metric, texts = CURRENT, self._texts
        lines: list[str] = []
        others: dict[tuple[str, ...], float] = {}
        folded = 0
        for (channel, name), each in overview.rate_limits.items():
            written = texts.get(name)
            if written is not None and written[0] == channel and _is_label(channel):
                lines.append(f"{metric.name}{written[1]} {each.used!r}")
                continue
            label = _label(channel)
            # Channels that share a label share the series, lest one comes twice.
            labels = (label, name if label is not OTHER and _is_label(name) and len(others) < self._most else OTHER)
            folded += labels[1] is OTHER
            _put(others, labels, each.used, max)
        if folded:
            self._folded.count(metric.name, folded)
        return metric, [*lines, *_plain(metric, others)]

    # -- one series per channel -----------------------------------------------------------------------------------------

    def _of_channels(self, overview: Overview) -> Iterator[tuple[Metric, list[str]]]:
        snapshot = overview.snapshot
        states = {channel: float(circuit_breaker.STATES.index(state)) for channel, state in overview.breakers.items()}
        limits: dict[str, float] = {}
        for (channel, _), each in overview.rate_limits.items():
            if each.most is not None:
                limits[channel] = max(limits.get(channel, 0.0), each.most)
        yield self._by_name(circuit_breaker.STATE, states, _worse_state)
        yield self._by_name(PAUSED, {channel: float(channel in overview.pauses) for channel in overview.channels}, max)
        yield self._by_name(MAX, limits, max)
        yield self._by_name(LAST_RUN, snapshot.last_runs, min)
        yield self._by_name(REVIEW, snapshot.reviews, _sum)
        totals: dict[tuple[str, ...], float] = {
            (_label(channel), status): 0 for channel in overview.channels for status in connections.STATUSES
        }
        by_status = Counter((connection.channel_type, connection.status) for connection in snapshot.connections.values())
        for (channel, status), count in by_status.items():
            _put(totals, (_label(channel), status), count, _sum)
        yield connections.TOTAL, _plain(connections.TOTAL, totals)

    def _by_name(self, metric: Metric, values: Mapping[str, float], worst: _Combine) -> tuple[Metric, list[str]]:
        shared: dict[tuple[str, ...], float] = {}
        folded = 0
        for name, value in values.items():
            label = _label(name)
            folded += label is OTHER
            _put(shared, (label,), value, worst)
        if folded:
            self._folded.count(metric.name, folded)
        return metric, _plain(metric, shared)


_BOTH: Final = ("channel_type", "connection_id")


def _page(families: Iterable[tuple[Metric, list[str]]]) -> Page:
    """
    Write gauges, which look the same in both formats as long as no help text has a quote in it.
    """
    text: list[str] = []
    for metric, lines in families:
        if lines:
            text.append(f"# HELP {metric.name} {escape_help(metric.help, openmetrics=True)}\n# TYPE {metric.name} {metric.kind}")
            text += lines
    text.append("")
    body = "\n".join(text)
    return Page(body, body)


def _plain(metric: Metric, values: Mapping[tuple[str, ...], float]) -> list[str]:
    return [f"{metric.name}{labels_text(metric.labels, labels)} {value!r}" for labels, value in values.items()]


def _put(values: dict[tuple[str, ...], float], labels: tuple[str, ...], value: float, combine: _Combine) -> None:
    values[labels] = combine(values[labels], value) if labels in values else value


def _worse_state(one: float, other: float) -> float:
    """
    Of two breakers that share a series, show the one that lets less through: open, then half-open, then closed.
    """
    return max(one, other, key=lambda state: (state == 1, state))


def _sum(one: float, other: float) -> float:
    return one + other


def _label(name: str) -> str:
    return name if _is_label(name) else OTHER


def _is_label(name: str) -> bool:
    """
    Tell whether *name* can stand on the page as it is: short, whole, and not the word for all others.
    """
    return len(name) <= _LONGEST_LABEL and name != OTHER and (name.isascii() or is_utf8(name))
