"""
Where a person goes from an alert: the runbook, and the dashboard that shows the same thing.
"""

from __future__ import annotations

import re

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from celery_obs.exceptions import ConfigurationError


__all__ = ["DASHBOARDS", "JOB", "Dashboard", "Links"]


JOB: Final = "celery-obs"
"""
The job under which the shipped configuration of Prometheus scrapes the exporters.
"""

Dashboard: TypeAlias = Literal[
    "channel-manager-overview",
    "channel-manager-platform",
    "channel-manager-connections",
    "celery-tasks",
    "celery-queues",
    "celery-beat",
    "celery-obs-slo",
    "celery-obs-exporter",
    "celery-obs-infrastructure",
    "celery-obs-business",
]
"""
The uid of a dashboard.
"""

DASHBOARDS: Final[dict[Dashboard, tuple[str, ...]]] = {
    "channel-manager-overview": (),
    "channel-manager-platform": ("channel_type",),
    "channel-manager-connections": ("channel_type",),
    "celery-tasks": ("task", "queue"),
    "celery-queues": ("queue",),
    "celery-beat": ("entry",),
    "celery-obs-slo": ("slo",),
    "celery-obs-exporter": ("instance",),
    "celery-obs-infrastructure": (),
    "celery-obs-business": (),
}
"""
Our dashboards, each with the variables that a link may fill in; a variable has the name of a label.
"""

_URL = re.compile(r"https?://[^\s{}\"'<>]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """
    Where runbooks and dashboards are served.

    Attributes:
        runbooks: What stands before ``/<AlertName>.md``.

        grafana: Grafana's root URL.
    """

    runbooks: str = "https://runbooks.example.com"
    grafana: str = "https://grafana.example.com"

    def __post_init__(self) -> None:
        """
        Refuse what is no link: it would be found out at night.
        """
        for name, url in (("runbooks", self.runbooks), ("Grafana", self.grafana)):
            if _URL.fullmatch(url) is None:
                message = f"The URL of {name} is {url!r}. Expected one such as https://{name.lower()}.example.org, without spaces, quotes and braces."
                raise ConfigurationError(message)

    def runbook(self, alert: str) -> str:
        """
        Return the URL of an alert's runbook.
        """
        return f"{self.runbooks.rstrip('/')}/{alert}.md"

    def dashboard(self, uid: Dashboard, labels: tuple[str, ...] = ()) -> str:
        """
        Return the URL of a dashboard, which an alert with *labels* opens on what it is about.
        """
        variables = [f"var-{name}={{{{ $labels.{name} | urlquery }}}}" for name in DASHBOARDS.get(uid, ()) if name in labels]
        return f"{self.grafana.rstrip('/')}/d/{uid}" + ("?" + "&".join(variables) if variables else "")
