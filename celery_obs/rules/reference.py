"""
Reference pages: every metric, every alert, every panel of every dashboard, what the exceptions of clients mean, and what is assumed of libraries.
"""

from __future__ import annotations

import re

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

from celery_obs.areas import Area, left_out_if_broken, parts
from celery_obs.areas.catalogue import catalogue
from celery_obs.vocabulary.spec import Metric

from . import compat_page, recording, slo
from .alerts import ALERTS
from .changes import NOTHING, Changes
from .dashboards.model import Dashboard, Kind, Panel
from .dashboards.pages import DASHBOARDS
from .links import Links
from .objectives import DEFAULT, Objective, read
from .render import Output, marked
from .rules import Alert, Override, RecordingRule
from .third_party import FOREIGN


__all__ = ["build"]


_METRICS: Final = """\
# Metrics

Every metric, with the question that it answers.
All names come from the catalogue in `celery_obs/areas`.

- A label's values are limited; further ones are counted as `_other`, and in `celery_obs_labels_folded_total`.
- Ids are not labels, except `connection_id` on the state of a connection.
- What could not be read is absent, never 0.
- Prometheus adds `job` and `instance`.
"""

_ALERTS: Final = """\
# Alerts

Every alert, the rules of which are in `deploy/prometheus/rules`.
Each has a runbook, named like it, and links to it and to a dashboard; give your own addresses with `celery-obs generate --runbooks-url … --grafana-url …`.

The threshold, the minimum number of events of a ratio, the duration and the severity can be changed, and an alert switched off, with `celery-obs generate --alerts FILE`: see [load rules and alerts](../how-to/load-rules-and-alerts.md).
An alert without a threshold fires when its condition is true.

*critical* pages, *warning* waits for the morning, *info* is for those who look, and *none* is for machines.
The rules add up over all exporters that one Prometheus scrapes: let each Prometheus, or each of its tenants, see one Celery application.
"""

_RECORDED: Final = """
## Recorded series

Dashboards build on these; none is exposed, Prometheus computes them.
"""

_FOREIGN: Final = """
## Metrics of others

Some alerts, objectives and dashboards read what the application or other exporters expose.
They are silent where neither does.
"""

_DASHBOARDS: Final = """\
# Dashboards

Every dashboard, with every panel and the question that it answers.
The JSON is in `deploy/grafana/dashboards`; [watch it](../how-to/watch-it.md) says how to load it.

The pictures show the demo, which has an outage, a revoked account and a burst in each minute; `tox -e pictures` draws them from a live Prometheus.
They are laid out as Grafana does it, with its units, colours and legends, and they are not screenshots: what a click or a hover shows is not in them, nor are the marks of firing alerts.

- Colours mean the same everywhere: green is good, red has failed, pale is neither; a blue number is not judged.
- A gap in a line is time of which nothing is known, and *no data* is not 0.
- Numbers that count are told per minute, or of a time that the title names; *(range)* is the time that you look at.
"""

_PICTURES: Final[dict[Kind, str]] = {
    "stat": "number",
    "timeseries": "course",
    "table": "table",
    "state-timeline": "states",
    "bargauge": "bars",
}


def build(links: Links, path: Path = DEFAULT, changes: Changes = NOTHING) -> Iterator[Output]:
    """
    Write the pages.

    Args:
        path: The file of objectives.

        changes: What a team has otherwise.
    """
    objectives = read(path)
    yield _page("docs/reference/metrics.md", "celery_obs/areas", "".join(_metrics(objectives)))
    yield _page("docs/reference/alerts.md", changes.sources("celery_obs/areas"), "".join(_alerts(objectives, changes)))
    yield _page("docs/reference/dashboards.md", "celery_obs/rules/dashboards", "".join(_dashboards()))
    for area, part in parts("reference"):
        with left_out_if_broken(area, "reference"):
            yield from [_page(*page) for page in part.pages()]
    yield _page("docs/reference/compat.md", "celery_obs/compat", compat_page.page())


def _page(path: str, source: str, text: str) -> Output:
    return Output(path, marked(source, text, comment="<!--", end=" -->"))


# -- metrics ------------------------------------------------------------------------------------------------------------


def _metrics(objectives: tuple[Objective, ...]) -> Iterator[str]:
    yield _METRICS
    listed: set[str] = set()
    for area, part in parts("metrics"):
        metrics = [metric for metric in catalogue([part]).values() if metric.name not in listed]
        listed.update(metric.name for metric in metrics)
        yield f"\n## {_title(area)}\n\n{_sentence(part)}\n"
        yield from map(_metric, metrics)
    yield _FOREIGN
    yield from map(_metric, FOREIGN.values())
    yield _RECORDED
    yield _table(("series", "question"), [(f"`{record.name}`", record.help) for record in _records(objectives)])


def _title(area: Area) -> str:
    return area.name.replace("_", " ").capitalize()


def _sentence(part: ModuleType) -> str:
    sentence = re.split("[:,] ", str(part.__doc__).strip().partition("\n")[0], maxsplit=1)[-1]
    return sentence[:1].upper() + sentence[1:]


def _metric(metric: Metric) -> str:
    lines = ["", f"### `{metric.name}`", "", *metric.help.replace("? ", "?\n", 1).split("\n"), ""]
    lines.append(f"- {metric.kind}" + (f", the {metric.aggregate} of several processes" if metric.kind == "gauge" else ""))
    lines.append(f"- labels: {', '.join(f'`{label}`' for label in metric.labels) or 'none'}")
    if metric.buckets:
        lines.append(f"- buckets up to: {', '.join(f'{edge:g}' for edge in metric.buckets)}")
    if metric.lint_exempt:
        lines.append(f"- exempt from a linter's rule on names: {metric.lint_exempt}")
    return "\n".join(lines) + "\n"


def _records(objectives: tuple[Objective, ...]) -> Iterator[RecordingRule]:
    for group in recording.GROUPS:
        yield from (rule for rule in group.rules if isinstance(rule, RecordingRule))
    recorded = {rule.name: rule for group in slo.groups(objectives) for rule in group.rules if isinstance(rule, RecordingRule)}
    yield from recorded.values()


# -- alerts -------------------------------------------------------------------------------------------------------------


_HEAD: Final = ("alert", "severity", "threshold", "of at least", "after", "summary")


def _alerts(objectives: tuple[Objective, ...], changes: Changes) -> Iterator[str]:
    yield _ALERTS
    for area, alerts in ALERTS.items():
        yield f"\n## {area.replace('_', ' ').capitalize()}\n\n"
        yield _table(_HEAD, [_row(alert) for alert in changes.within(alerts)])
    yield "\n## Objectives\n\nEach has the alerts below, with its name in the label `slo`.\n\n"
    rules = {rule.name: rule for group in slo.groups(objectives) for rule in group.rules if isinstance(rule, Alert)}
    yield _table(_HEAD, [_row(alert) for alert in changes.within(rules.values())])
    yield "\n"
    yield _table(("objective", "target", "period", "what is promised"), [_objective(each) for each in objectives])


def _row(alert: Alert) -> tuple[str, ...]:
    summary = re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"*\1*", alert.filled_in(alert.summary))
    threshold = alert.threshold.spoken if alert.threshold else ""
    # A few words, for a table: the texts of an alert have all of them.
    threshold += "".join(f"; {_exception(each)}" for each in alert.overrides)
    least = "" if alert.min_events is None else str(alert.min_events)
    name = f"[{alert.name}](../runbooks/{alert.name}.md)"
    return (name, alert.severity, threshold, least, alert.for_ if alert.for_ != "0m" else "at once", summary)


def _exception(each: Override) -> str:
    who = ", ".join(f"{label} {' or '.join(values)}" for label, values in each.where.items())
    numbers = [each.threshold.spoken] if each.threshold else []
    numbers += [] if each.min_events is None else [f"of at least {each.min_events}"]
    return f"{' '.join(numbers) if each.enabled else 'off'} for {who}"


def _objective(each: Objective) -> tuple[str, ...]:
    return (f"`{each.name}`", f"{(each.objective * 100).normalize():f} %", f"{each.period_days} days", each.description)


# -- dashboards ---------------------------------------------------------------------------------------------------------


def _dashboards() -> Iterator[str]:
    yield _DASHBOARDS
    for page in DASHBOARDS:
        yield f"\n## {page.title}\n\n{page.question}\n\n![{page.title}](../dashboards/{page.uid}.png)\n\n"
        yield from _facts(page)
        for row in page.rows:
            yield f"\n### {row.title}\n\n"
            yield _table(("panel", "shows", "what it answers"), [_panel(panel) for panel in row.panels])
        yield f"\n<details><summary>Its queries</summary>\n\n```promql\n{_queries(page)}\n```\n\n</details>\n"


def _facts(page: Dashboard) -> Iterator[str]:
    yield f"- address: `/d/{page.uid}`\n"
    yield f"- to choose: {', '.join(variable.title for variable in page.variables)}\n"
    yield f"- looks back: {page.since.removeprefix('now-')}\n"


def _panel(panel: Panel) -> tuple[str, ...]:
    return (panel.title, _PICTURES[panel.kind], panel.description())


def _queries(page: Dashboard) -> str:
    return "\n\n".join(f"# {panel.title}\n" + "\n".join(query.expr for query in panel.queries) for panel in page.panels())


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
