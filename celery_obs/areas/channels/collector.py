"""
The cluster's collector: what all workers share, out of Redis, as one page.
"""

from __future__ import annotations

import logging

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from celery_obs.areas import left_out_if_broken, parts
from celery_obs.exporter.exposition import Page
from celery_obs.exporter.options import Sidecar
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.recorder.merge import escape_help
from celery_obs.throttle import LogThrottle
from celery_obs.vocabulary.spec import OTHER

from .overview import Overview
from .series import Family, Series, Texts, texts_of


__all__ = ["MOST_CONNECTIONS", "ClusterCollector", "collectors"]


MOST_CONNECTIONS: Final = 20_000
"""
Connections that have series of their own; all others share those of ``_other``.
"""

log = logging.getLogger("celery_obs.exporter")


def collectors(sidecar: Sidecar) -> Iterator[ClusterCollector]:
    """
    Make the collector of what all workers share, where there is a Redis that has it.
    """
    if sidecar.overview is not None:
        yield ClusterCollector(sidecar.overview, folded=sidecar.folded)


class ClusterCollector:
    """
    Show the state that workers and beat tasks put into Redis: the gauges of all areas.

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
        self._texts: Texts = {}
        self._gauges = tuple(parts("gauges"))

    def collect(self) -> Page:
        """
        Read and write everything.
        """
        overview = self._read()
        known = overview.snapshot.connections
        self._texts = texts_of(known, self._texts, most=self._most)
        folded = len(known) - len(self._texts)
        if folded and self._throttle.allows("folded"):
            shown = f"{folded} of {len(known)} connections"
            log.warning("%s share the series of %s: beyond the first %d, or with an id that is no label.", shown, OTHER, self._most)
        return _page(self._families(Series(overview, self._texts, folded=self._folded, most=self._most)))

    def _families(self, series: Series) -> Iterator[Family]:
        for area, part in self._gauges:
            with left_out_if_broken(area, "gauges"):
                yield from tuple(part.gauges(series))


def _page(families: Iterable[Family]) -> Page:
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
