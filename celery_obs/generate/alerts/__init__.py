"""
The alerts: what somebody should hear of, one file an area, as in every room.

Severity says who hears of it and when; a ratio has a floor of traffic under it, lest one failure of two at night be "50 %".
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Final

from celery_obs.exceptions import ConfigurationError
from celery_obs.generate.links import Links
from celery_obs.generate.render import Output
from celery_obs.generate.rules import Alert, Group, rule_file

from . import (
    api_calls,
    beat,
    circuit_breaker,
    conflicts,
    connections,
    neighbours,
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


__all__ = ["ALERTS", "AREAS", "build", "gathered"]


AREAS: Final[tuple[ModuleType, ...]] = (
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
    neighbours,
)


def gathered(groups: Iterator[tuple[str, tuple[Alert, ...]]]) -> dict[str, tuple[Alert, ...]]:
    """
    Gather alerts by area.

    Raises:
        ConfigurationError: if two have one name: they would have one runbook, and nobody could silence one of them.
    """
    found: dict[str, tuple[Alert, ...]] = {}
    owners: dict[str, str] = {}
    for area, alerts in groups:
        for alert in alerts:
            owner = owners.setdefault(alert.name, area)
            if owner != area or sum(other.name == alert.name for other in alerts) > 1:
                message = f"Two alerts are called {alert.name}, in {owner} and in {area}. Give one of them another name."
                raise ConfigurationError(message)
        found[area] = alerts
    return found


ALERTS: Final = gathered((area.__name__.rpartition(".")[2], area.ALERTS) for area in AREAS)
"""
By area.
"""


def build(links: Links) -> Iterator[Output]:
    """
    Write one file of alerts an area.
    """
    for area, alerts in ALERTS.items():
        group = Group(name=f"celery_obs_alerts_{area}", comment=_origin(alerts), rules=alerts)
        yield Output(
            f"deploy/prometheus/rules/alerts-{area.replace('_', '-')}.yml", rule_file(f"celery_obs/generate/alerts/{area}", [group], links)
        )


def _origin(alerts: tuple[Alert, ...]) -> str:
    seeds = sorted({seed for alert in alerts for seed in alert.seeds})
    return f"seeds {', '.join(seeds)}." if seeds else "no seed has these."
