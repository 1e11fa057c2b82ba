"""
The catalogue: every metric that there is, gathered from the areas, for the worker that records it, the sidecar that serves it and the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType, ModuleType
from typing import Final

from celery_obs.vocabulary.spec import Metric

from . import guarded, parts


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


def _all() -> Mapping[str, Metric]:
    """
    Gather the metrics of all areas; another distribution's that take a name of those before them are left out, and told.
    """
    modules: list[ModuleType] = []
    for area, part in parts("metrics"):
        with guarded(area, "metrics"):
            _names(catalogue([*modules, part]))
            modules.append(part)
    return catalogue(modules)


def _names(metrics: Mapping[str, Metric]) -> Mapping[str, str]:
    """
    Return the names on a page, each with the metric that has it.

    Raises:
        ValueError: if two metrics share one.
    """
    owners: dict[str, str] = {}
    for metric in metrics.values():
        for name in metric.names:
            owner = owners.setdefault(name, metric.name)
            if owner != metric.name:
                message = f"{metric.name} and {owner} are both called {name} on the page."
                raise ValueError(message)
    return MappingProxyType(owners)


CATALOGUE: Final = _all()

NAMES: Final = _names(CATALOGUE)
"""
All names on a page that are taken, each with the metric that has it.
"""
