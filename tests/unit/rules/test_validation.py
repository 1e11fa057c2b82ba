"""
What clashes with something else is refused, with the places to go to.
"""

from __future__ import annotations

import dataclasses
import re

from pathlib import Path

import pytest

from celery_obs.exceptions import ConfigurationError
from celery_obs.rules.dashboards.model import Row
from celery_obs.rules.dashboards.pages import DASHBOARDS
from celery_obs.rules.objectives import read
from celery_obs.rules.render import Output, outputs
from celery_obs.rules.rules import Alert, Group, RecordingRule
from celery_obs.rules.validation import (
    RUNBOOKS,
    defined,
    everything,
    known_to,
    refuse_missing_dashboards,
    refuse_missing_runbooks,
    refuse_the_same_twice,
    refuse_unknown_names,
)
from tests.unit.rules.builders import alert, group
from tests.unit.rules.shipped import EVERY_ALERT


ROOT = Path(__file__).parents[3]


def test_nothing_of_ours_is_there_twice() -> None:
    """
    Groups, alerts and recorded series can be told apart, in all files together.
    """
    refuse_the_same_twice(everything())


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        ([group("g"), group("g")], "Two groups are called g. Prometheus would keep one"),
        ([group("g", alert()), group("h", alert())], "Two alerts are called QueueLong. "),
        (
            [group("g", alert(labels={"slo": "a"}), alert(labels={"slo": "b"}), alert(labels={"slo": "a"}))],
            "Two alerts are called QueueLong with slo=a. ",
        ),
        (
            [
                group("g", RecordingRule(name="a:b:rate5m", help="?", expr="1")),
                group("h", RecordingRule(name="a:b:rate5m", help="?", expr="2")),
            ],
            "Two recorded series are called a:b:rate5m. ",
        ),
    ],
)
def test_what_nobody_could_tell_apart_is_refused(groups: list[Group], problem: str) -> None:
    """
    Prometheus would keep one of the two.
    """
    with pytest.raises(ConfigurationError, match=re.escape(problem)):
        refuse_the_same_twice(groups)


def test_the_same_twice_is_refused_with_its_places() -> None:
    """
    The message leads to both.
    """
    with pytest.raises(ConfigurationError, match=re.escape("Two alerts are called QueueLong: a.py, line 3; b.py, line 5. Prometheus")):
        refuse_the_same_twice([group("g", alert(), alert())], where=lambda name: ["a.py, line 3", "b.py, line 5"])


def test_a_definition_is_found_with_its_line() -> None:
    """
    Rules are written in Python: the file and the line say where.
    """
    [place] = defined("CeleryQueueBacklog")
    path, _, line = place.partition(", line ")

    assert "celery_obs/areas/queues/alerts.py" == path
    assert 'name="CeleryQueueBacklog"' in (ROOT / path).read_text(encoding="utf-8").splitlines()[int(line) - 1]


def test_every_alert_of_ours_has_its_runbook() -> None:
    """
    The generator itself looks.
    """
    refuse_missing_runbooks((each.name for each in EVERY_ALERT), ROOT / RUNBOOKS)


def test_an_alert_without_a_runbook_is_refused(tmp_path: Path) -> None:
    """
    Its link would lead nowhere, and it would go unnoticed until the night.
    """
    problem = f"line {defined('Watchdog')[0].partition('line ')[2]}) has no runbook: {tmp_path / 'Watchdog.md'} is missing."

    with pytest.raises(ConfigurationError, match=re.escape(problem)):
        refuse_missing_runbooks(["Watchdog"], tmp_path)


def test_an_alert_that_shows_a_dashboard_which_is_not_there_is_refused() -> None:
    """
    All of ours are there, those of areas included.
    """
    refuse_missing_dashboards(everything(), DASHBOARDS)

    with pytest.raises(ConfigurationError, match=r"The alert QueueLong shows the dashboard 'nowhere'\. Expected one of celery-beat, "):
        refuse_missing_dashboards([group("odd", alert(dashboard="nowhere"))], DASHBOARDS)


def test_who_keeps_runbooks_elsewhere_is_left_alone(tmp_path: Path) -> None:
    """
    A team writes the rules for its own folder, without our pages.
    """
    refuse_missing_runbooks(["Watchdog"], tmp_path / "nowhere")


def test_two_dashboards_at_one_address_are_refused() -> None:
    """
    A dashboard's uid is its file.
    """
    page = Output(f"deploy/grafana/dashboards/{DASHBOARDS[0].uid}.json", "{}")

    with pytest.raises(ConfigurationError, match=f"Two builders write .+{DASHBOARDS[0].uid}.json"):
        outputs(None, [lambda links: [page, page]])


def test_all_that_we_ship_asks_for_what_there_is() -> None:
    """
    Rules, aliases, panels and runbooks.
    """
    groups = everything()

    refuse_unknown_names(groups, known_to(groups, read()), pages=DASHBOARDS, runbooks=ROOT / RUNBOOKS)


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        (
            alert(expr="celery_queue_dept > 1"),
            "The alert QueueLong asks for celery_queue_dept, which is neither in the catalogue nor recorded.",
        ),
        (
            RecordingRule(name="a:b:rate5m", help="?", expr='celery_queue_depth{task="t"}'),
            "The recording rule a:b:rate5m asks for the label task of celery_queue_depth, which it does not have. It has queue.",
        ),
        (alert(name="Watchdog", expr="celery_task_sent_total"), "line "),
    ],
)
def test_a_rule_that_asks_for_what_nobody_makes_is_refused(rule: Alert | RecordingRule, problem: str) -> None:
    """
    Prometheus would answer with nothing, for ever; and aliases may not be there.
    """
    groups = everything()

    with pytest.raises(ConfigurationError, match=re.escape(problem)):
        refuse_unknown_names([group("g", rule)], known_to(groups, ()))


def test_a_panel_that_asks_for_what_nobody_makes_is_refused_with_its_place() -> None:
    """
    The panel's title leads to its line.
    """
    page = DASHBOARDS[0]
    panel = next(page.panels())
    wrong = dataclasses.replace(panel, queries=(dataclasses.replace(panel.queries[0], expr="channel_conections"),))
    problem = rf"The panel '{re.escape(panel.title)}' of {page.uid} \(celery_obs/[\w/]+\.py, line \d+.*\) asks for channel_conections,"

    with pytest.raises(ConfigurationError, match=problem):
        refuse_unknown_names([], known_to((), ()), pages=[dataclasses.replace(page, rows=(Row("", (wrong,)),))])


def test_a_runbook_that_asks_for_what_nobody_makes_is_refused_with_its_line(tmp_path: Path) -> None:
    """
    What is pasted at night has to answer.
    """
    page = tmp_path / "QueueLong.md"
    page.write_text("# Long\n\n```sh\nno_query\n```\n\n```promql\ncelery_queue_depth\n\nmax(celery_queue_lenght)\n```\n", encoding="utf-8")

    with pytest.raises(
        ConfigurationError, match=re.escape(f"{page}, line 10, asks for celery_queue_lenght, which is neither in the catalogue")
    ):
        refuse_unknown_names([], known_to((), ()), runbooks=tmp_path)


def test_metrics_that_objectives_declare_are_known(tmp_path: Path) -> None:
    """
    A team's own objectives are on its own metrics.
    """
    (tmp_path / "slo.yml").write_text(
        "metrics:\n  - {name: paid_total, kind: counter, labels: [ok]}\n  - {name: unpaid_total, kind: counter}\n"
        "slos:\n  - name: paid\n    description: Paid.\n    objective: 99\n    events: {metric: paid_total, bad_metric: unpaid_total}\n",
        encoding="utf-8",
    )
    groups = everything(tmp_path / "slo.yml")

    refuse_unknown_names(groups, known_to(groups, read(tmp_path / "slo.yml")))
