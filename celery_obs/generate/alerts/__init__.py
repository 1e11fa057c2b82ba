"""
The alerts: what somebody should hear of, one file an area, as in every room.

Severity says who hears of it and when; a ratio has a floor of traffic under it, lest one failure of two at night be "50 %".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Final

from celery_obs.generate.changes import NOTHING, Changes
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


__all__ = ["ALERTS", "AREAS", "build", "groups"]


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


ALERTS: Final[Mapping[str, tuple[Alert, ...]]] = {area.__name__.rpartition(".")[2]: area.ALERTS for area in AREAS}
"""
By area.
"""


def groups() -> Iterator[Group]:
    """
    Make one group of alerts an area.
    """
    for area, alerts in ALERTS.items():
        yield Group(name=f"celery_obs_alerts_{area}", comment=_origin(alerts), rules=alerts)


def build(links: Links, changes: Changes = NOTHING) -> Iterator[Output]:
    """
    Write one file of alerts an area, as a team has them.
    """
    for area, group in zip(ALERTS, groups(), strict=True):
        text = rule_file(changes.told(f"celery_obs/generate/alerts/{area}"), [changes.in_group(group)], links)
        yield Output(f"deploy/prometheus/rules/alerts-{area.replace('_', '-')}.yml", text)


def _origin(alerts: tuple[Alert, ...]) -> str:
    seeds = sorted({seed for alert in alerts for seed in alert.seeds})
    return f"seeds {', '.join(seeds)}." if seeds else "no seed has these."
