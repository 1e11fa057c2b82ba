"""
The runbooks: one for every alert, and nothing in them that does not work.
"""

from __future__ import annotations

import re
import shlex

from pathlib import Path

import click
import pytest

from celery_obs.cli.group import obs
from tests.queries import problems
from tests.rules.promtool import promtool, run_tests
from tests.runbooks import RUNBOOKS, commands, queries, text_of
from tests.unit.rules.shipped import EVERY_ALERT, KNOWN


SECTIONS = ["Meaning", "Impact", "First five minutes", "Queries", "Mitigation", "Is it over?", "Escalation"]
NAMES = sorted({alert.name for alert in EVERY_ALERT})


def test_there_is_a_runbook_for_every_alert_and_no_other() -> None:
    """
    Who is woken finds a page under the alert's name.
    """
    assert NAMES == sorted(path.stem for path in RUNBOOKS.glob("*.md"))


@pytest.mark.parametrize("alert", NAMES)
def test_a_runbook_has_all_its_parts(alert: str) -> None:
    """
    Every page is built alike, so that there is no searching at night.
    """
    text = text_of(alert)
    severities = {each.severity for each in EVERY_ALERT if each.name == alert}

    assert SECTIONS == re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert {re.findall(rf"Alert `{alert}`, severity (\w+)\.", text)[0]} == severities


def test_a_runbook_is_titled_by_what_one_sees() -> None:
    """
    Titles are words for people, and no two are the same.
    """
    titles = [text_of(alert).partition("\n")[0] for alert in NAMES]

    assert len(titles) == len(set(titles))
    assert not {title for title in titles if not title.startswith("# ") or title[2:] in NAMES}


@pytest.mark.parametrize("alert", NAMES)
def test_every_query_of_a_runbook_asks_for_what_there_is(alert: str) -> None:
    """
    What is pasted at night answers.
    """
    found = queries(text_of(alert))

    assert found
    assert {} == {query: wrong for query in found if (wrong := problems(query, KNOWN))}


def test_every_query_of_every_runbook_runs(tmp_path: Path) -> None:
    """
    Prometheus itself evaluates all of them.
    """
    promtool()
    (tmp_path / "rules.yml").write_text("groups: []\n", encoding="utf-8")
    every = sorted({query for alert in NAMES for query in queries(text_of(alert))})
    asked = [{"expr": query, "eval_time": "1m", "exp_samples": []} for query in every]

    done = run_tests([tmp_path / "rules.yml"], [{"interval": "1m", "promql_expr_test": asked}], tmp_path)

    assert 0 == done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("command", sorted({command for alert in NAMES for command in commands(text_of(alert))}))
def test_every_command_of_a_runbook_exists(command: str) -> None:
    """
    What is typed at night is understood.
    """
    words = shlex.split(command)[1:]
    current: click.Command = obs
    context = click.Context(obs)
    while isinstance(current, click.Group):
        name = words.pop(0)
        found = current.get_command(context, name)
        assert found is not None, f"There is no command {name}."
        current = found

    if current.name != "probe":
        current.make_context(current.name, words, resilient_parsing=False).close()
