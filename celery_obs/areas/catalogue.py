"""
The catalogue: every metric that there is, gathered from the areas, for the worker that records it, the sidecar that serves it and the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType, ModuleType
from typing import Final

from celery_obs.vocabulary.spec import Metric

from . import left_out_if_broken, parts


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


def _gathered() -> Mapping[str, Metric]:
    """
    Gather the metrics of all areas; an area of another distribution that takes a name on the page of those before is left out, and told.

    Raises:
        ValueError: if two metrics of ours share a name.
    """
    found: dict[str, Metric] = {}
    owners: dict[str, str] = {}
    for area, part in parts("metrics"):
        with left_out_if_broken(area, "metrics"):
            new, taken = catalogue([part]), dict(owners)
            for metric in new.values():
                name = metric.taken(taken)
                if name is not None or found.get(metric.name, metric) is not metric:
                    name = name or metric.name
                    message = f"{metric.name} and {taken[name]} are both called {name} on the page:\n  {metric}\n  {found.get(taken[name])}"
                    raise ValueError(message)
                taken.update(dict.fromkeys(metric.names, metric.name))
            found.update(new)
            owners = taken
    return MappingProxyType(found)


CATALOGUE: Final = _gathered()

NAMES: Final[Mapping[str, str]] = MappingProxyType({name: metric.name for metric in CATALOGUE.values() for name in metric.names})
"""
All names on a page that are taken, each with the metric that has it.
"""
