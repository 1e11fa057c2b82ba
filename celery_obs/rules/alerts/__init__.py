"""
The alerts, one file an area, as in every room.

Severity says who hears of it and when; a ratio has a floor of traffic under it, lest one failure of two at night be "50 %".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Final

from celery_obs.areas import parts
from celery_obs.rules import third_party_alerts
from celery_obs.rules.changes import NOTHING, Changes
from celery_obs.rules.links import Links
from celery_obs.rules.render import Output
from celery_obs.rules.rules import Alert, Group, rule_file


__all__ = ["ALERTS", "build", "groups"]


_MODULES: Final[Mapping[str, ModuleType]] = {**{area.name: part for area, part in parts("alerts")}, "neighbours": third_party_alerts}

ALERTS: Final[Mapping[str, tuple[Alert, ...]]] = {name: module.ALERTS for name, module in _MODULES.items()}
"""
By area.
"""


def groups() -> Iterator[Group]:
    """
    Make one group of alerts an area.
    """
    for area, module in _MODULES.items():
        yield Group(name=f"celery_obs_alerts_{area}", comment=_sentence(module), rules=module.ALERTS)


def build(links: Links, changes: Changes = NOTHING) -> Iterator[Output]:
    """
    Write one file of alerts an area, as a team has them.
    """
    for area, group in zip(ALERTS, groups(), strict=True):
        text = rule_file(changes.sources(_MODULES[area].__name__.replace(".", "/")), [changes.in_group(group)], links)
        yield Output(f"deploy/prometheus/rules/alerts-{area.replace('_', '-')}.yml", text)


def _sentence(module: ModuleType) -> str:
    """
    Return the first sentence of the module, which says what its alerts are about.
    """
    sentence = str(module.__doc__).strip().partition("\n")[0]
    return sentence[:1].lower() + sentence[1:]
