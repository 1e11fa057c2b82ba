"""
All that we ship, at work on one machine: the demo is observed, a channel breaks, the engineer on call is told, and every panel, rule and runbook has an answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from celery_obs.areas.sidecar import metrics as ourselves
from tests.answers import Survey, of_panels, of_records, of_runbooks, of_variables, series_of
from tests.demo import ROOT
from tests.live import LiveStack
from tests.monitoring import Receiver, Row
from tests.servers import wait_until


pytestmark = pytest.mark.integration

BROKEN = "booking_com"
"""
The channel that is broken here.  The demo's story gives expedia an outage and airbnb slow answers of its own.
"""

BREAKER = next(each for each in of_panels({"channel_type": BROKEN}) if each.where.startswith("channel-manager-platform: Circuit breaker:"))
"""
What the dashboard to which the alert leads shows of its breaker.
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStack]:
    """
    One for all tests of this file.
    """
    with LiveStack(tmp_path_factory.mktemp("live")) as made:
        made.begin()
        yield made


# --- from a broken channel to the engineer's telephone --------------------------------------------------------------------------------


class Incident(NamedTuple):
    """
    What PagerDuty and Slack were told of one channel's breaker, in order.
    """

    paged: list[dict[str, Any]]
    slack: list[dict[str, Any]]

    def is_open(self) -> bool:
        """
        Tell whether both have heard of it.
        """
        return bool(self.paged and self.slack)

    def is_resolved(self) -> bool:
        """
        Tell whether both have heard that it is over.
        """
        return self.is_open() and self.paged[-1]["event_action"] == "resolve" and "RESOLVED" in self.slack[-1]["attachments"][0]["title"]


def incident(receiver: Receiver, channel: str) -> Incident:
    """
    Pick what was told of *channel*.
    """
    title = f"Circuit breaker OPEN for {channel}"
    return Incident(
        paged=[told for told in receiver.on("/v2/enqueue") if title in told["payload"]["summary"]],
        slack=[told for told in receiver.on("/slack") if title in told["attachments"][0]["title"]],
    )


class Outage(NamedTuple):
    """
    A channel's outage, from its begin to its end.

    Attributes:
        panel: What the dashboard showed of the breaker when the alert had been delivered.

        incident: Who was told what.
    """

    panel: list[Row]
    incident: Incident


@pytest.fixture(scope="module")
def outage(stack: LiveStack) -> Outage:
    """
    Let a channel fail until an alert is delivered, and mend it until its end is.
    """
    stack.break_channel(BROKEN)
    wait_until(lambda: incident(stack.receiver, BROKEN).is_open(), within=90, what="the alert")
    shown = stack.prometheus.rows(BREAKER.expr)
    stack.mend_channel(BROKEN)
    wait_until(lambda: incident(stack.receiver, BROKEN).is_resolved(), within=90, what="its end")
    return Outage(shown, incident(stack.receiver, BROKEN))


def test_an_outage_that_opens_the_breaker_pages_somebody(outage: Outage) -> None:
    """
    PagerDuty is told what it is about, how bad it is, where the runbook is and which dashboard shows it; and it does show it.
    """
    page = outage.incident.paged[0]

    assert "trigger" == page["event_action"]
    assert f"[FIRING:1] Circuit breaker OPEN for {BROKEN}" == page["payload"]["summary"]
    assert "critical" == page["payload"]["severity"]
    assert page["payload"]["custom_details"]["runbook"].endswith("/ChannelCircuitBreakerOpen.md")
    assert (ROOT / "docs/runbooks/ChannelCircuitBreakerOpen.md").is_file()
    assert page["client_url"].endswith(f"/d/channel-manager-platform?var-channel_type={BROKEN}")
    assert [row.value for row in outage.panel] in ([1.0], [2.0])


def test_an_outage_that_opens_the_breaker_is_told_on_slack(outage: Outage) -> None:
    """
    The message has the same title, and buttons to the runbook and the dashboard.
    """
    [message] = outage.incident.slack[0]["attachments"]

    assert f"[FIRING:1] Circuit breaker OPEN for {BROKEN}" == message["title"]
    assert message["title_link"].endswith("/ChannelCircuitBreakerOpen.md")
    assert [("Runbook", message["title_link"]), ("Dashboard", outage.incident.paged[0]["client_url"])] == [
        (action["text"], action["url"]) for action in message["actions"]
    ]


def test_the_end_of_an_outage_ends_the_incident(outage: Outage) -> None:
    """
    The breaker closes by itself, and what was opened at PagerDuty is resolved, not something else.
    """
    begun, ended = outage.incident.paged[0], outage.incident.paged[-1]

    assert "resolve" == ended["event_action"]
    assert begun["dedup_key"] == ended["dedup_key"]
    assert "RESOLVED" in outage.incident.slack[-1]["attachments"][0]["title"]


def test_the_watchdog_is_heard_all_the_time(stack: LiveStack) -> None:
    """
    The dead man's switch is told that all of this works.
    """
    wait_until(lambda: stack.receiver.on("/ping"), within=60, what="the watchdog at the dead man's switch")


# --- what people look at ----------------------------------------------------------------------------------------------------------

STORY = 100.0
"""
Seconds in which everything has been seen: the demo's story takes a minute.
"""


@pytest.fixture(scope="module")
def panels(stack: LiveStack, outage: Outage) -> Survey:
    """
    Every query of every panel, asked as Grafana does, after an outage that is over.
    """
    return Survey(stack.prometheus, of_panels({"channel_type": BROKEN})).ask_for(STORY)


@pytest.fixture(scope="module")
def records(stack: LiveStack, outage: Outage) -> Survey:
    """
    What every recording rule has recorded.
    """
    return Survey(stack.prometheus, of_records()).ask_for(STORY)


def test_no_panel_is_empty_without_a_reason(panels: Survey) -> None:
    """
    Each query of each dashboard shows something, or its panel says why not; and what shows something does not say so.
    """
    assert {} == panels.refused
    assert [] == panels.silent()
    assert [] == panels.answered_after_all()


def test_rows_have_the_labels_that_legends_and_tables_show(panels: Survey) -> None:
    """
    What a legend names, or a table has a column for, is on each row of real series, and tells it from every other.
    """
    assert [] == panels.mislabelled()


def test_every_variable_has_something_to_choose(stack: LiveStack) -> None:
    """
    The lists at the top of a dashboard are filled.
    """
    assert [] == Survey(stack.prometheus, of_variables()).ask_for(30).silent()


def test_every_recording_rule_records_something(records: Survey) -> None:
    """
    Each rule and each alias has series with the labels that it promises, or a reason for having none, which then holds.
    """
    assert {} == records.refused
    assert [] == records.silent()
    assert [] == records.answered_after_all()
    assert [] == records.mislabelled()


def test_every_rule_that_is_loaded_is_asked_for(stack: LiveStack) -> None:
    """
    Prometheus has the rules that we know of, and no other.
    """
    loaded = [series_of(rule.name, rule.labels) for rule in stack.prometheus.all_rules() if not rule.is_alert]

    assert sorted(question.where for question in of_records()) == sorted(loaded)


def test_every_rule_is_evaluated_without_an_error(stack: LiveStack) -> None:
    """
    On real series none of them matches many to many, alerts and aliases included.
    """
    wait_until(lambda: all(rule.health != "unknown" for rule in stack.prometheus.all_rules()), within=60, what="all rules to be evaluated")

    assert [] == [(rule.name, rule.error) for rule in stack.prometheus.all_rules() if rule.health != "ok"]


def test_every_query_of_every_runbook_runs(stack: LiveStack) -> None:
    """
    What is pasted at night is answered by real series, with a name in the place of each placeholder.
    """
    survey = Survey(stack.prometheus, of_runbooks())
    survey.ask()

    assert {} == survey.refused


def test_nothing_of_ours_has_failed_meanwhile(stack: LiveStack) -> None:
    """
    All that happened to the demo happened to the demo: the observer counted no error of its own, dropped nothing, and all its collectors are well.
    """
    server = stack.prometheus

    assert [] == server.rows(f"{ourselves.INTERNAL_ERRORS.name} > 0")
    assert [] == server.rows(f"{ourselves.DROPPED.name} > 0")
    assert [] == server.rows('ALERTS{alertname=~"CeleryObs.*", alertstate="firing"}')
    # A machine that is very busy may let one of them run out of time, now and then.
    wait_until(lambda: not server.rows(f"{ourselves.COLLECTOR_SUCCESS.name} < 1"), within=30, what="all collectors to be well")
