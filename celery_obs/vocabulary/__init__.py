"""
The vocabulary: everything that can happen, and every metric that we make of it, as plain values.

One module an area; this page gathers the metrics into the catalogue, which the worker, the exporter and the generator share.
Standard library only.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from . import (
    api_calls,
    beat,
    circuit_breaker,
    conflicts,
    connections,
    ourselves,
    queues,
    rate_limiter,
    reconciliation,
    syncs,
    tasks,
    tokens,
    webhooks,
    workers,
)
from .spec import Metric


if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import ModuleType


__all__ = ["AREAS", "CATALOGUE", "catalogue"]


AREAS: tuple[ModuleType, ...] = (
    tasks,
    workers,
    queues,
    beat,
    syncs,
    api_calls,
    rate_limiter,
    circuit_breaker,
    webhooks,
    tokens,
    connections,
    conflicts,
    reconciliation,
    ourselves,
)
"""
The areas, in the order in which a reader meets them.
"""


def catalogue(areas: Iterable[ModuleType]) -> Mapping[str, Metric]:
    """
    Gather the metrics of *areas* by name.

    Raises:
        ValueError: if two different metrics have one name; both definitions are shown.
    """
    found: dict[str, Metric] = {}
    for area in areas:
        for metric in vars(area).values():
            if not isinstance(metric, Metric):
                continue
            twin = found.setdefault(metric.name, metric)
            if twin is not metric:
                message = f"Two metrics are called {metric.name}:\n  {twin}\n  {metric}"
                raise ValueError(message)
    return MappingProxyType(found)


CATALOGUE = catalogue(AREAS)
