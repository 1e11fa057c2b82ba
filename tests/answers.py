"""
Whether what we ship has an answer: every query of every panel, every recording rule and every query of the runbooks, asked of a live Prometheus.

``python -m tests.answers report.txt`` starts everything, breaks a channel, asks, and writes what it found for people to read.
"""

from __future__ import annotations

import contextlib
import math
import re
import sys
import tempfile
import time

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import httpx
import pytest

from celery_obs.areas.catalogue import CATALOGUE
from celery_obs.areas.queues.metrics import CONSUMERS
from celery_obs.rules.dashboards.model import Dashboard, Panel, Query
from celery_obs.rules.dashboards.pages import DASHBOARDS
from celery_obs.rules.objectives import read
from celery_obs.rules.packs.aliases import ALIASES
from celery_obs.rules.third_party import HTTP_DURATION, HTTP_REQUESTS, NEWSLETTERS
from tests.monitoring import PrometheusServer, Row, without_variables
from tests.runbooks import RUNBOOKS, queries, text_of
from tests.unit.rules.shipped import RECORDS


if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = ["Question", "Survey", "of_panels", "of_records", "of_runbooks", "of_variables", "report", "series_of", "shown_labels"]


ABSENT: Final[Mapping[str, str]] = {
    CONSUMERS.name: "Redis does not know its consumers",
    **{metric.name: f"the demo does not declare {metric.name}" for metric in (HTTP_REQUESTS, HTTP_DURATION, NEWSLETTERS)},
}
"""
Why a rule that reads this metric records nothing on the live stack.  The reasons of panels stand with their queries.
"""

PLACEHOLDERS: Final[Mapping[str, str]] = {
    "CHANNEL": "booking_com",
    "CONNECTION": "booking_com-1",
    "ENTRY": "every-two-seconds",
    "INSTANCE": ".+",
    "JOB": "celery-obs",
    "QUEUE": "celery",
    "SLO": "sync-availability",
    "TASK": "demo.failing",
    "WORKER": "demo@.+",
}
"""
What a reader of a runbook puts in.
"""


class Question(NamedTuple):
    """
    Something that is asked of Prometheus.

    Attributes:
        where: Where it stands.

        expr: PromQL.

        shown: Labels that each row of the answer has, and that tell them apart.

        is_course: Whether it is asked over time, or now.

        absent_where: Why it may have no answer; empty where one is due.
    """

    where: str
    expr: str
    shown: frozenset[str] = frozenset()
    is_course: bool = False
    absent_where: str = ""


def shown_labels(panel: Panel, query: Query) -> frozenset[str]:
    """
    Return the labels that a reader sees: of a table, its columns, else what the legend names.
    """
    return frozenset(label for label, _ in panel.keys) or frozenset(re.findall(r"{{(\w+)}}", query.legend))


def of_panels(chosen: Mapping[str, str]) -> Iterator[Question]:
    """
    Ask what Grafana would: a course for what is drawn over time, else a value now.

    Args:
        chosen: What the reader has chosen, where only one can be chosen; everything else is all.
    """
    for page in DASHBOARDS:
        values = _values(page, chosen)
        for panel in page.panels():
            for query in panel.queries:
                yield Question(
                    where=f"{page.uid}: {panel.title}: {query.legend}",
                    expr=without_variables(query.expr, values),
                    shown=shown_labels(panel, query),
                    is_course=panel.kind in {"timeseries", "state-timeline"},
                    absent_where=query.absent_where,
                )


def of_variables() -> Iterator[Question]:
    """
    Ask for what the reader of a dashboard can choose.
    """
    for page in DASHBOARDS:
        for variable in page.variables:
            label = variable.label or variable.name
            known = CATALOGUE.get(variable.metric)
            series = f"{variable.metric}_count" if known and known.kind == "histogram" else variable.metric
            yield Question(f"{page.uid}: variable {variable.name}", f"count by ({label}) ({series})", frozenset({label}))


def _values(page: Dashboard, chosen: Mapping[str, str]) -> dict[str, str]:
    return {variable.name: chosen[variable.name] for variable in page.variables if not variable.many and variable.name in chosen}


def of_records() -> Iterator[Question]:
    """
    Ask for what every recording rule, those of the aliases included, has recorded.
    """
    missing = {objective.name: _reason(objective.events.all_of("5m")) for objective in read()}
    for record in [*RECORDS, *(record for aliases in ALIASES.values() for alias in aliases for record in alias.records())]:
        reason = missing.get(record.labels.get("slo", ""), "") if not record.expr.startswith("vector(") else ""
        series = series_of(record.name, record.labels)
        yield Question(
            where=series,
            expr=f"last_over_time({series}[10m])",
            shown=frozenset({*record.by, *record.labels}),
            absent_where=reason or _reason(record.expr),
        )


def series_of(name: str, labels: Mapping[str, str]) -> str:
    """
    Write what a rule records as PromQL, told from what others record under its name.
    """
    matchers = ", ".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{matchers}}}"


def _reason(expr: str) -> str:
    return next((reason for name, reason in ABSENT.items() if re.search(rf"\b{name}(_bucket|_count|_sum)?\b", expr)), "")


def of_runbooks() -> Iterator[Question]:
    """
    Ask what is pasted at night, with a name in the place of each placeholder.
    """
    for path in sorted(RUNBOOKS.glob("*.md")):
        for number, query in enumerate(queries(text_of(path.stem)), start=1):
            yield Question(
                where=f"{path.name}: query {number}",
                expr=re.sub(r'="([A-Z]+)"', _filled, query),
                absent_where="there is none of what it asks for, or the metric does not exist",
            )


def _filled(found: re.Match[str]) -> str:
    value = PLACEHOLDERS[found[1]]
    return f'=~"{value}"' if "+" in value else f'="{value}"'


class Survey:
    """
    Questions, and what Prometheus has answered so far.

    Args:
        server: Whom to ask.

        questions: What.
    """

    def __init__(self, server: PrometheusServer, questions: Iterable[Question]) -> None:
        self._server = server
        self.rows: dict[Question, list[Row]] = {question: [] for question in questions}
        self.refused: dict[Question, str] = {}

    def ask(self) -> bool:
        """
        Ask what has no answer yet; tell whether all that is due has come.
        """
        for question, rows in self.rows.items():
            if not rows:
                self._ask(question)
        return not self.silent()

    def ask_for(self, seconds: float) -> Self:
        """
        Ask again and again until all that is due has come, for at most so long.
        """
        deadline = time.monotonic() + seconds
        while not self.ask() and time.monotonic() < deadline:
            time.sleep(0.5)
        return self

    def ask_anew(self) -> None:
        """
        Ask everything once more; what is silent now keeps its answer from before.
        """
        for question in self.rows:
            self._ask(question)

    def _ask(self, question: Question) -> None:
        try:
            rows = self._server.course(question.expr) if question.is_course else self._server.rows(question.expr)
        except httpx.HTTPStatusError as error:
            self.refused[question] = error.response.json()["error"]
        else:
            # What is no number is drawn as nothing.
            self.rows[question] = [row for row in rows if not math.isnan(row.value)] or self.rows[question]

    def silent(self) -> list[str]:
        """
        Return what has no answer, and no reason for it.
        """
        return [question.where for question, rows in self.rows.items() if not rows and not question.absent_where]

    def answered_after_all(self) -> list[str]:
        """
        Return what has an answer, and a reason for having none; of no use for what may or may not have one.
        """
        return [question.where for question, rows in self.rows.items() if rows and question.absent_where]

    def mislabelled(self) -> list[str]:
        """
        Return what lacks a label that a reader sees on a row, or has rows that the reader cannot tell apart.
        """
        return [question.where for question, rows in self.rows.items() if not _can_be_told_apart(question, rows)]

    def lines(self) -> Iterator[str]:
        """
        Write it down for people: what has no answer first.
        """
        for question, message in self.refused.items():
            yield f"  REFUSED   {question.where}: {message}"
        for question, rows in self.rows.items():
            if not rows and question not in self.refused:
                yield f"  NO ANSWER {question.where}: {question.absent_where or 'reason unknown'}"
        for question, rows in self.rows.items():
            if rows:
                labels = ", ".join(f"{label}={value}" for label, value in sorted(rows[0].labels.items()) if label != "__name__")
                yield f"  {len(rows):4} rows {question.where}: {rows[0].value:g}{f' for {labels}' if labels else ''}"


def _can_be_told_apart(question: Question, rows: list[Row]) -> bool:
    return all(question.shown <= row.labels.keys() for row in rows) and len(rows) == len(
        {tuple(row.labels[label] for label in sorted(question.shown)) for row in rows}
    )


def report(server: PrometheusServer, surveys: Mapping[str, Survey]) -> str:
    """
    Write down what was asked and answered, the slowest rules, and what fires.
    """
    lines = []
    for title, survey in surveys.items():
        answered = sum(bool(rows) for rows in survey.rows.values())
        lines += [f"{title}: {answered} of {len(survey.rows)} have an answer.", *survey.lines(), ""]
    rules = sorted(server.all_rules(), key=lambda rule: -rule.seconds)
    broken = [rule for rule in rules if rule.health != "ok"]
    lines += [f"Rules: {len(rules) - len(broken)} of {len(rules)} are evaluated without an error.  The slowest:"]
    lines += [f"  {rule.seconds * 1000:6.1f} ms {rule.group}: {rule.name}" for rule in rules[:10]]
    lines += [f"  BROKEN {rule.group}: {rule.name}: {rule.error or rule.health}" for rule in broken]
    lines += ["", "Alerts:"]
    told = ("alertname", "alertstate", "__name__", "severity")
    for row in sorted(server.rows("ALERTS"), key=lambda row: (row.labels["alertstate"], row.labels["alertname"])):
        about = ", ".join(f"{label}={value}" for label, value in sorted(row.labels.items()) if label not in told)
        lines.append(f"  {row.labels['alertstate']:8} {row.labels['alertname']}{f' for {about}' if about else ''}")
    return "\n".join([*lines, ""])


def _ask_for(seconds: float, surveys: Mapping[str, Survey]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for survey in surveys.values():
            survey.ask()
        time.sleep(1)


def main(path: Path) -> None:
    """
    Start everything, break a channel, ask, and write the report.
    """
    from tests.live import LiveStack

    with tempfile.TemporaryDirectory() as folder, LiveStack(Path(folder)) as stack:
        stack.begin()
        stack.break_channel("booking_com")
        surveys = {
            "Panels": Survey(stack.prometheus, of_panels({"channel_type": "booking_com"})),
            "Variables of dashboards": Survey(stack.prometheus, of_variables()),
            "Recording rules and aliases": Survey(stack.prometheus, of_records()),
            "Queries of runbooks": Survey(stack.prometheus, of_runbooks()),
        }
        _ask_for(20, surveys)
        stack.mend_channel("booking_com")
        # All of the demo's story, which takes a minute.
        _ask_for(50, surveys)
        for survey in surveys.values():
            survey.ask_anew()
        path.write_text(report(stack.prometheus, surveys), encoding="utf-8")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        try:
            main(Path(sys.argv[1] if len(sys.argv) > 1 else "report.txt"))
        except (pytest.fail.Exception, pytest.skip.Exception) as error:
            sys.exit(str(error))
