"""
The exporter about itself: its version, its process, and what went wrong in it.
"""

from __future__ import annotations

import platform

from collections.abc import Iterator
from typing import Final

import celery_obs

from celery_obs.exporter.exposition import Page, family, render
from celery_obs.exporter.options import Sidecar
from celery_obs.exporter.scrape import InternalErrors

from . import metrics as ourselves


__all__ = ["OurselvesCollector", "collectors"]


def collectors(sidecar: Sidecar) -> Iterator[OurselvesCollector]:
    """
    Make the collector of the sidecar itself, which is always there.
    """
    yield OurselvesCollector(sidecar.errors, folded=sidecar.folded)


class OurselvesCollector:
    """
    Shows ``celery_obs_build_info``, ``celery_obs_internal_errors_total``, ``process_*`` and ``python_*``.

    Args:
        errors: What went wrong, by component.

        folded: What the exporter itself had to fold, by metric; the workers' own is on their page.
    """

    name: Final = "ourselves"
    inline: Final = True

    def __init__(self, errors: InternalErrors, *, folded: InternalErrors | None = None) -> None:
        from prometheus_client import GCCollector, PlatformCollector, ProcessCollector  # noqa: PLC0415 -- no collector, no library.
        from prometheus_client.registry import CollectorRegistry  # noqa: PLC0415

        self._errors = errors
        self._folded = folded or InternalErrors()
        # A registry of our own: the default one may hold what a package of the user's put there.
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def collect(self) -> Page:
        """
        Look at this process.
        """
        build = family(ourselves.BUILD_INFO, [((celery_obs.__version__, platform.python_version()), 1.0)])
        errors = family(ourselves.INTERNAL_ERRORS, [((component,), count) for component, count in sorted(self._errors.snapshot().items())])
        folded = family(ourselves.LABELS_FOLDED, [((metric,), count) for metric, count in sorted(self._folded.snapshot().items())])
        return render([build, errors, folded, *self._registry.collect()])
