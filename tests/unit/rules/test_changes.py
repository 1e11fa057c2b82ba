"""
A file of changes is understood, or refused with the line and the reason.
"""

from __future__ import annotations

import re

from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.exceptions import ConfigurationError
from celery_obs.rules.changes import NOTHING, Changes, read_changes
from celery_obs.rules.rules import Alert
from celery_obs.rules.yaml_reader import Reader
from tests.unit.rules.shipped import EVERY_ALERT


ALERTS = {alert.name: alert for alert in EVERY_ALERT}
PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "load-rules-and-alerts.md"

EVERYTHING = """\
alerts:
  CeleryQueueBacklog:
    threshold: 5000
    for: 30m
    severity: critical
    except:
      - {queue: bulk, threshold: 50000}
      - {queue: [reports, exports], enabled: false}
  ChannelSyncHighFailureRate:
    threshold: 2.5%
    min_events: 50
  ChannelSyncLatencyHigh: {threshold: 1m}
  CeleryPoolSaturated: off
  ChannelLeftPaused: {enabled: no}
"""


def read(tmp_path: Path, text: str) -> Changes:
    """
    Read a file of changes to our alerts.
    """
    path = tmp_path / "alerts.yml"
    path.write_text(text, encoding="utf-8")
    return read_changes(path, EVERY_ALERT)


def changed(changes: Changes, name: str) -> Alert:
    """
    Return one alert as the team has it.
    """
    alert = changes.of(ALERTS[name])
    assert alert is not None
    return alert


def test_a_team_has_its_own_numbers(tmp_path: Path) -> None:
    """
    Threshold, waiting time, severity and floor are as written; what is not said stays.
    """
    changes = read(tmp_path, EVERYTHING)
    backlog, failing, slow = (
        changed(changes, name) for name in ("CeleryQueueBacklog", "ChannelSyncHighFailureRate", "ChannelSyncLatencyHigh")
    )

    assert ("critical", "30m") == (backlog.severity, backlog.for_)
    assert "(\n  max by (queue) (celery_queue_depth) > 5000\n)" in backlog.promql
    assert ("> 0.025\n" in failing.promql, ">= 50" in failing.promql, "5m") == (True, True, failing.for_)
    assert "> 60\n" in slow.promql
    assert ALERTS["CeleryQueueBackedUp"] == changes.of(ALERTS["CeleryQueueBackedUp"])


def test_an_alert_can_be_switched_off(tmp_path: Path) -> None:
    """
    In a word, or with a key.
    """
    changes = read(tmp_path, EVERYTHING)

    assert (None, None) == (changes.of(ALERTS["CeleryPoolSaturated"]), changes.of(ALERTS["ChannelLeftPaused"]))


def test_a_key_of_before_is_read_with_a_warning(tmp_path: Path) -> None:
    """
    A file with ``least_events`` goes on working for a release, and says where to write ``min_events``.
    """
    where = "  ChannelSyncHighFailureRate:\n    {}: 50\n    except: [{{channel_type: booking_com, {}: 7}}]\n"
    expected = read(tmp_path, "alerts:\n" + where.format("min_events", "min_events"))

    with pytest.warns(FutureWarning) as warned:
        found = read(tmp_path, "alerts:\n" + where.format("least_events", "least_events"))

    assert expected == found
    assert [
        f"{tmp_path / 'alerts.yml'}, line {line}: The key least_events is deprecated. Write min_events instead." for line in (3, 4)
    ] == [str(each.message) for each in warned]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("keys", [("least_events", "min_events"), ("min_events", "least_events")])
def test_a_key_and_its_old_name_together_are_refused(tmp_path: Path, keys: tuple[str, str]) -> None:
    """
    Which of two numbers was meant cannot be guessed.
    """
    text = "alerts:\n  ChannelSyncHighFailureRate: {{{}: 5, {}: 6}}\n".format(*keys)

    with pytest.raises(ConfigurationError, match="line 2: The key min_events is there twice, once under its old name"):
        read(tmp_path, text)


def test_nothing_is_otherwise_if_nobody_says_so() -> None:
    """
    The defaults are in one place only.
    """
    assert EVERY_ALERT == list(NOTHING.within(EVERY_ALERT))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "are empty. Expected the key alerts"),
        ("alerts: 3\n", "line 1: Expected keys and values here."),
        ("alert: {}\n", "line 1: There is no key 'alert' here. Expected alerts. Did you mean alerts?"),
        ("alerts: {\n", "line 2: this is not YAML"),
        ("alerts:\n  CeleryQueueBaklog: off\n", "line 2: There is no alert 'CeleryQueueBaklog'. Did you mean CeleryQueueBacklog?"),
        ("alerts:\n  Nothing: off\n", "line 2: There is no alert 'Nothing'. They are listed in docs/reference/alerts.md."),
        ("alerts:\n  Watchdog: off\n  Watchdog: off\n", "line 3: The key Watchdog is there twice."),
        ("alerts:\n  CeleryQueueBacklog: on\n", "line 2: The alert CeleryQueueBacklog is switched on already."),
        ("alerts:\n  CeleryQueueBacklog: 3\n", "line 2: There is '3'. Expected true or false."),
        ("alerts:\n  CeleryQueueBacklog: []\n", "line 2: Expected keys and values here."),
        (
            "alerts:\n  CeleryQueueBacklog:\n    thresh0ld: 3\n",
            "line 3: There is no key 'thresh0ld' here. Expected threshold, min_events, for, severity, enabled, except. Did you mean threshold?",
        ),
        (
            "alerts:\n  CeleryQueueBacklog:\n    threshold: many\n",
            "line 3: The threshold of CeleryQueueBacklog: There is 'many'. Expected a number such as 1000. By default it is 1000.",
        ),
        (
            "alerts:\n  ChannelSyncHighFailureRate:\n    threshold: 10\n",
            "line 3: The threshold of ChannelSyncHighFailureRate: It is 10. Expected a part between 0 and 1, such as 0.1 or 10%. By default it is 10%.",
        ),
        (
            "alerts:\n  ChannelSyncLatencyHigh:\n    threshold: 1h\n",
            "line 3: The threshold of ChannelSyncLatencyHigh: It is 1h. Expected less than 10m",
        ),
        (
            "alerts:\n  Watchdog:\n    threshold: 1\n",
            "line 3: The alert Watchdog has no threshold to change.",
        ),
        (
            "alerts:\n  CeleryQueueBacklog:\n    min_events: 1\n",
            "line 3: The alert CeleryQueueBacklog has no min_events: it is not a ratio",
        ),
        ("alerts:\n  ChannelSyncHighFailureRate:\n    min_events: 1.5\n", "line 3: There is '1.5'. Expected a whole number."),
        (
            "alerts:\n  CeleryQueueBacklog:\n    for: 15\n",
            "line 3: There is '15'. Expected a duration such as 90s, 15m or 1h30m; 0m for at once.",
        ),
        (
            "alerts:\n  CeleryQueueBacklog:\n    severity: crit\n",
            "line 3: There is no severity 'crit'. Expected critical, warning, info, none.",
        ),
        (
            "alerts:\n  CeleryQueueBacklog:\n    except:\n      - {task: t, threshold: 1}\n",
            "line 4: There is no key 'task' here. Expected queue, threshold, min_events, enabled.",
        ),
        (
            "alerts:\n  CeleryQueueBacklog:\n    except:\n      - {threshold: 1}\n",
            "line 4: An override of CeleryQueueBacklog does not say for whom. Expected one or more of queue.",
        ),
        (
            "alerts:\n  CeleryQueueBacklog:\n    except:\n      - {queue: bulk}\n",
            "line 4: An override of CeleryQueueBacklog does not say what is different. Expected one or more of threshold, min_events, enabled.",
        ),
        ("alerts:\n  CeleryQueueBacklog:\n    except:\n      - {queue: [], threshold: 1}\n", "line 4: Expected at least one value here."),
        (
            "alerts:\n  CeleryBeatStopped:\n    except:\n      - {queue: bulk, threshold: 1}\n",
            "line 4: The alert CeleryBeatStopped cannot have overrides",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    """
    Who wrote the file is told where, what is there, and what was expected.
    """
    with pytest.raises(ConfigurationError, match=re.escape(problem)) as refused:
        read(tmp_path, text)

    assert str(tmp_path / "alerts.yml") in str(refused.value)


def test_the_example_of_the_documentation_is_understood(tmp_path: Path) -> None:
    """
    What people copy from the page works.
    """
    [example] = [
        block
        for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
        if block.startswith("alerts:")
    ]

    assert read(tmp_path, example).changed


@given(value=st.decimals("0", "1e9", places=3))
def test_a_number_means_what_was_written(value: Decimal) -> None:
    """
    Nothing is rounded between the file and the rule.
    """
    node = yaml.compose(f"{value}", Loader=yaml.SafeLoader)

    assert node is not None
    assert value == Reader(Path("x.yml")).number(node)
    default = ALERTS["CeleryQueueBacklog"].threshold
    assert default is not None
    assert value == default.parsed(node.value).value
