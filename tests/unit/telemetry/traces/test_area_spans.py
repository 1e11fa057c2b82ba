"""
What areas say of spans: token refreshes and reconciliations, as the span of a sync run.
"""

from __future__ import annotations

from typing import Any

import pytest

from opentelemetry.trace import StatusCode

from celery_obs.areas.channels.reconciliation.events import ReconciliationEnded, ReconciliationStarted
from celery_obs.areas.channels.tokens.events import TokenRefreshEnded, TokenRefreshStarted
from tests.unit.telemetry.traces.builders import attributes_of, observer, tell


REFRESH = TokenRefreshStarted("airbnb", "conn-1")
CHECK = ReconciliationStarted("airbnb", "conn-1")


@pytest.mark.parametrize(
    ("began", "ended", "name", "attributes"),
    [
        (REFRESH, TokenRefreshEnded(REFRESH, "success", ""), "refresh_token airbnb", {"channel.refresh_status": "success"}),
        (CHECK, ReconciliationEnded(CHECK, 365, 2, ""), "reconcile airbnb", {"channel.days.checked": 365, "channel.days.drifted": 2}),
    ],
)
def test_a_span_says_whose_it_is_and_how_it_ended(began: Any, ended: Any, name: str, attributes: dict[str, Any]) -> None:
    """
    Channel and connection from its beginning, the rest from its end.
    """
    traces, memory = observer()

    tell(traces, began)
    tell(traces, ended)

    span = memory.one()
    assert name == span.name
    assert {"channel.type": "airbnb", "channel.connection_id": "conn-1", **attributes}.items() <= attributes_of(span).items()
    assert StatusCode.ERROR is not span.status.status_code


@pytest.mark.parametrize("ended", [TokenRefreshEnded(REFRESH, "failure", "Timeout"), ReconciliationEnded(CHECK, 0, 0, "Timeout")])
def test_what_failed_is_an_error(ended: Any) -> None:
    """
    With the type of what went wrong.
    """
    traces, memory = observer()

    tell(traces, ended.started)
    tell(traces, ended)

    assert StatusCode.ERROR is memory.one().status.status_code
    assert "Timeout" == attributes_of(memory.one())["error.type"]
