"""
Lines of the page about what all workers share: one series a connection or a channel, as many as there may be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from celery_obs.exporter.scrape import InternalErrors
from celery_obs.recorder.merge import labels_text
from celery_obs.vocabulary.spec import OTHER, Metric, is_utf8

from .connections.state import Connection
from .overview import Overview


__all__ = ["Combine", "Family", "Series", "Texts", "texts_of"]


Combine: TypeAlias = Callable[[float, float], float]
"""
Makes one value of those of two that share a series.
"""

Family: TypeAlias = tuple[Metric, list[str]]
"""
A metric and its lines.
"""

Texts: TypeAlias = dict[str, tuple[str, str]]
"""
By connection id, the channel and the labels as they stand on the page.
"""

_LONGEST_LABEL: Final = 500
_BOTH: Final = ("channel_type", "connection_id")


class Series:
    """
    Write the series of one scrape.

    Args:
        overview: What there is to show.

        texts: The labels of those connections that have series of their own; all others share those of ``_other``.

        folded: Counts, by metric, the series that went to ``_other``.

        most: How many connections without series of their own have some where they are not registered.
    """

    def __init__(self, overview: Overview, texts: Texts, *, folded: InternalErrors, most: int) -> None:
        self.overview = overview
        self._texts = texts
        self._folded = folded
        self._most = most

    def by_connection(self, metric: Metric, values: Mapping[str, float], worst: Combine) -> Family:
        """
        Write a value for each connection; those that share a series show the *worst* of theirs.

        Args:
            values: By the ids of connections that are registered.
        """
        name, texts, known = metric.name, self._texts, self.overview.snapshot.connections
        if len(texts) == len(known):
            return metric, [f"{name}{texts[connection_id][1]} {value!r}" for connection_id, value in values.items()]
        lines = [f"{name}{texts[connection_id][1]} {value!r}" for connection_id, value in values.items() if connection_id in texts]
        shared: dict[tuple[str, ...], float] = {}
        for connection_id, value in values.items():
            if connection_id not in texts:
                _put(shared, (_label(known[connection_id].channel_type), OTHER), value, worst)
        if len(lines) < len(values):
            self._folded.count(name, len(values) - len(lines))
        return metric, [*lines, *_plain(metric, shared)]

    def by_account(self, metric: Metric, values: Mapping[tuple[str, str], float], worst: Combine) -> Family:
        """
        Write a value for each channel and connection, also for connections that are not registered.
        """
        texts = self._texts
        lines: list[str] = []
        others: dict[tuple[str, ...], float] = {}
        folded = 0
        for (channel, name), value in values.items():
            written = texts.get(name)
            if written is not None and written[0] == channel and _is_label(channel):
                lines.append(f"{metric.name}{written[1]} {value!r}")
                continue
            label = _label(channel)
            # Channels that share a label share the series, lest one comes twice.
            labels = (label, name if label is not OTHER and _is_label(name) and len(others) < self._most else OTHER)
            folded += labels[1] is OTHER
            _put(others, labels, value, worst)
        if folded:
            self._folded.count(metric.name, folded)
        return metric, [*lines, *_plain(metric, others)]

    def by_name(self, metric: Metric, values: Mapping[str, float], worst: Combine) -> Family:
        """
        Write a value for each channel, or what else the metric's one label names.
        """
        shared: dict[tuple[str, ...], float] = {}
        folded = 0
        for name, value in values.items():
            label = _label(name)
            folded += label is OTHER
            _put(shared, (label,), value, worst)
        if folded:
            self._folded.count(metric.name, folded)
        return metric, _plain(metric, shared)

    def by_channel_and(self, metric: Metric, values: Mapping[tuple[str, str], float], worst: Combine) -> Family:
        """
        Write a value for each channel and word, such as a status.
        """
        shared: dict[tuple[str, ...], float] = {}
        for (channel, word), value in values.items():
            _put(shared, (_label(channel), word), value, worst)
        return metric, _plain(metric, shared)


def texts_of(known: Mapping[str, Connection], before: Texts, *, most: int) -> Texts:
    """
    Write the labels of those connections that have series of their own, *most* of them; most were written *before*.
    """
    texts: Texts = {}
    own = known if len(known) <= most else sorted(known)[:most]
    for name in own:
        channel = known[name].channel_type
        written = before.get(name)
        if written is not None and written[0] == channel:
            texts[name] = written
        elif _is_label(name):
            texts[name] = (channel, labels_text(_BOTH, (_label(channel), name)))
    return texts


def _plain(metric: Metric, values: Mapping[tuple[str, ...], float]) -> list[str]:
    return [f"{metric.name}{labels_text(metric.labels, labels)} {value!r}" for labels, value in values.items()]


def _put(values: dict[tuple[str, ...], float], labels: tuple[str, ...], value: float, combine: Combine) -> None:
    values[labels] = combine(values[labels], value) if labels in values else value


def _label(name: str) -> str:
    return name if _is_label(name) else OTHER


def _is_label(name: str) -> bool:
    """
    Tell whether *name* can stand on the page as it is: short, whole, and not the word for all others.
    """
    return len(name) <= _LONGEST_LABEL and name != OTHER and (name.isascii() or is_utf8(name))
