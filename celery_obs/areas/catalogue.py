"""
The catalogue: every metric that there is, gathered from the areas, for the worker that records it, the sidecar that serves it and the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType, ModuleType
from typing import Final

from celery_obs.vocabulary.spec import Metric

from . import parts


__all__ = ["CATALOGUE", "NAMES", "catalogue"]


def catalogue(modules: Iterable[ModuleType]) -> Mapping[str, Metric]:
    """
    Gather the metrics of *modules* by name.

    Raises:
        ValueError: if two different metrics have one name; both definitions are shown.
    """
    found: dict[str, Metric] = {}
    for module in modules:
        for metric in vars(module).values():
            if not isinstance(metric, Metric):
                continue
            twin = found.setdefault(metric.name, metric)
            if twin is not metric:
                message = f"Two metrics are called {metric.name}:\n  {twin}\n  {metric}"
                raise ValueError(message)
    return MappingProxyType(found)


CATALOGUE: Final = catalogue(part for _, part in parts("metrics"))

NAMES: Final[Mapping[str, str]] = MappingProxyType({name: metric.name for metric in CATALOGUE.values() for name in metric.names})
"""
All names on a page that are taken, each with the metric that has it.
"""
