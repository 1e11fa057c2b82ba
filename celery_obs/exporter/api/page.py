"""
The status page: how things stand, for a person with a browser.
"""

from __future__ import annotations

import logging

from collections import Counter
from collections.abc import Callable, Iterable
from html import escape
from typing import TYPE_CHECKING, Final

import celery_obs

from celery_obs.areas import left_out_if_broken, parts
from celery_obs.exporter.health import Report
from celery_obs.exporter.samples import Samples
from celery_obs.telemetry.redaction import without_secrets

from .model import PREFIX
from .table import QUESTIONS


if TYPE_CHECKING:
    from celery_obs.areas.channels.overview import Overview


__all__ = ["POLICY", "status_page"]


POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""
The page loads nothing and runs nothing, whatever a channel is called.
"""

_LONGEST_NAME: Final = 100
_LONGEST_TEXT: Final = 500
_MOST_TROUBLES: Final = 50
_LINKS: Final = (
    ("/metrics", "Metrics"),
    ("/health", "Health"),
    ("/-/ready", "Ready"),
    ("/openapi.json", "OpenAPI"),
)
_LINKS_OF_CHANNELS: Final = (
    ("/api/v1/channels/status", "Connections"),
    ("/api/v1/channels/circuit-breakers", "Circuit breakers"),
    ("/api/v1/channels/reconciliation/pending", "Pending reconciliation"),
    ("/api/v1/channels/tokens/expiring", "Tokens that expire soon"),
)
_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse}th,td{padding:.3em .8em;border-bottom:1px solid #ddd;text-align:left}"
    "td.n{text-align:right}.bad{color:#b00020;font-weight:600}"
)

log = logging.getLogger("celery_obs.exporter")


def status_page(read: Callable[[], Overview] | None, *, leader: str, report: Report | None = None, samples: Samples | None = None) -> str:
    """
    Write the page: first what is wrong, then the cluster's state, and what areas have to say of *samples*; a Redis that is away is told on it.
    """
    links = "".join(f'<li><a href="{path}">{name}</a></li>' for path, name in _LINKS)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>celery_obs exporter</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>celery_obs exporter</h1><p>Version {escape(celery_obs.__version__)}</p>\n"
        f"{_troubles(report or Report())}\n{_cluster(read, leader)}\n{_of_areas(samples or Samples(()))}<ul>{links}</ul>\n</body></html>\n"
    )


def _troubles(report: Report) -> str:
    lines = [
        f"<li><span class=bad>{_name(each.text, _LONGEST_TEXT)}</span> {_name(each.advice, _LONGEST_TEXT)} <code>{each.condition.alert}</code></li>"
        for each in report.troubles[:_MOST_TROUBLES]
    ]
    left = len(report.troubles) - len(lines)
    lines += [f"<li>{left} more; <a href=/health>/health</a> has them.</li>"] if left > 0 else []
    lines += [f"<li>{_name(area.capitalize())}: {_name(why, _LONGEST_TEXT)}.</li>" for area, why in report.unknown.items()]
    if lines:
        return f"<h2>What is wrong</h2>\n<ul>{''.join(lines)}</ul>"
    looked_at = ", ".join(area for area in report.areas if area != "sidecar")
    return f"<p>All is well: {looked_at}.</p>" if looked_at else ""


def _cluster(read: Callable[[], Overview] | None, leader: str) -> str:
    if read is None:
        return "<p>No Redis is configured, so the state of the cluster is not shown.</p>"
    try:
        overview = read()
    except Exception as error:
        log.debug("The status page has no state to show.", exc_info=without_secrets(error))
        return f'<p class="bad">The state of the cluster cannot be read: {escape(type(error).__name__)}. Is Redis running?</p>'
    who = f"Served to Prometheus by <code>{escape(leader)}</code>." if leader else "No exporter serves it to Prometheus at the moment."
    if not overview.channels:
        return ""  # Without channels there is nothing else to share.
    counts = Counter((each.channel_type, each.status) for each in overview.snapshot.connections.values())
    head = "".join(f"<th>{word}</th>" for word in ("Channel", "Breaker", "Paused", *overview.STATUSES))
    rows = "".join(_row(channel, overview, [counts[channel, status] for status in overview.STATUSES]) for channel in overview.channels)
    asked = {f"{PREFIX}{each.path}" for each in QUESTIONS}
    links = "".join(f'<li><a href="{path}">{name}</a></li>' for path, name in _LINKS_OF_CHANNELS if path in asked)
    return f"<p>{who}</p>\n<table><tr>{head}</tr>\n{rows}</table>\n<ul>{links}</ul>"


def _of_areas(samples: Samples) -> str:
    sections = []
    for area, part in parts("page"):
        with left_out_if_broken(area, "page"):
            rows = "".join(f'<tr><td>{_name(what)}</td><td class="n">{_name(value)}</td></tr>' for what, value in part.facts(samples))
            if rows:
                sections.append(f"<h2>{_name(area.name.replace('_', ' ').capitalize())}</h2>\n<table>{rows}</table>\n")
    return "".join(sections)


def _row(channel: str, overview: Overview, counts: Iterable[int]) -> str:
    state = overview.breakers.get(channel, "closed")
    pause = overview.pauses.get(channel)
    paused = "" if pause is None else f"by {pause.actor or 'an unknown user'}: {pause.reason or 'no reason given'}"
    cells = "".join(f'<td class="n">{count}</td>' for count in counts)
    return (
        f"<tr><td>{_name(channel)}</td><td{'' if state == 'closed' else ' class=bad'}>{state}</td>"
        f"<td{' class=bad' if pause else ''}>{_name(paused)}</td>{cells}</tr>\n"
    )


def _name(text: str, longest: int = _LONGEST_NAME) -> str:
    shown = text if len(text) <= longest else text[: longest - 1] + "…"
    return escape(shown.encode("utf-8", "replace").decode())
