"""
All that we ship, at work on one machine: the demo is observed, a channel breaks, somebody is told, and every panel, rule and runbook has an answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.demo import ROOT
from tests.live import LiveStack
from tests.monitoring import Receiver
from tests.servers import wait_until


pytestmark = pytest.mark.integration

BROKEN = "booking_com"
"""
The channel that is broken here.  The demo's story gives expedia an outage and airbnb slow answers of its own.
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStack]:
    """
    One for all tests of this file.
    """
    with LiveStack(tmp_path_factory.mktemp("live")) as made:
        made.begin()
        yield made


# --- from a broken channel to somebody's telephone --------------------------------------------------------------------------------


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


def test_a_channels_outage_reaches_slack_and_pagerduty_and_so_does_its_end(stack: LiveStack) -> None:
    """
    The breaker opens by itself and wakes somebody, with what it is about, the runbook and the dashboard; when the channel is back, that incident ends.
    """
    stack.break_channel(BROKEN)
    wait_until(lambda: incident(stack.receiver, BROKEN).is_open(), within=90, what="the alert")
    stack.mend_channel(BROKEN)
    wait_until(lambda: incident(stack.receiver, BROKEN).is_resolved(), within=90, what="its end")

    paged, slack = incident(stack.receiver, BROKEN)
    begun, ended = paged[0], paged[-1]
    assert "trigger" == begun["event_action"]
    assert f"[FIRING:1] Circuit breaker OPEN for {BROKEN}" == begun["payload"]["summary"]
    assert "critical" == begun["payload"]["severity"]
    assert begun["payload"]["custom_details"]["runbook"].endswith("/ChannelCircuitBreakerOpen.md")
    assert begun["client_url"].endswith(f"/d/channel-manager-platform?var-channel_type={BROKEN}")
    assert begun["dedup_key"] == ended["dedup_key"]
    [message] = slack[0]["attachments"]
    assert f"[FIRING:1] Circuit breaker OPEN for {BROKEN}" == message["title"]
    assert message["title_link"].endswith("/ChannelCircuitBreakerOpen.md")
    assert ["Runbook", "Dashboard"] == [action["text"] for action in message["actions"]]
    assert message["actions"][1]["url"] == begun["client_url"]
    assert (ROOT / "docs/runbooks/ChannelCircuitBreakerOpen.md").is_file()


def test_the_watchdog_is_heard_all_the_time(stack: LiveStack) -> None:
    """
    The dead man's switch is told that all of this works.
    """
    wait_until(lambda: stack.receiver.on("/ping"), within=60, what="the watchdog at the dead man's switch")
