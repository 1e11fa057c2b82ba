"""
All rules that we ship, and the series that a query may ask for.
"""

from __future__ import annotations

import sys

from celery_obs.rules import recording, slo
from celery_obs.rules.alerts import ALERTS
from celery_obs.rules.objectives import read
from celery_obs.rules.render import NotBuiltError, Output, outputs
from celery_obs.rules.rules import Alert, RecordingRule
from tests.queries import known_series


__all__ = ["EVERY_ALERT", "KNOWN", "RECORDS", "made_here"]


_SLO_RULES = [rule for group in slo.groups(read()) for rule in group.rules]

RECORDS = [rule for group in recording.GROUPS for rule in group.rules if isinstance(rule, RecordingRule)]
RECORDS += [rule for rule in _SLO_RULES if isinstance(rule, RecordingRule)]

EVERY_ALERT = [alert for alerts in ALERTS.values() for alert in alerts] + [rule for rule in _SLO_RULES if isinstance(rule, Alert)]

KNOWN = known_series(RECORDS)
"""
By name.
"""


def made_here() -> tuple[Output, ...]:
    """
    Return all generated files; on Python 3.10, which Grafana's SDK does not know, all but the dashboards.
    """
    return outputs(on_lack=_ignored if sys.version_info < (3, 11) else None)


def _ignored(lack: NotBuiltError) -> None:
    pass
