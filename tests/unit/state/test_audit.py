"""
The audit: a line for each operation, whatever Redis does.
"""

from __future__ import annotations

import json
import logging

import pytest

from celery_obs.state.audit import Audit


def test_a_line_says_who_did_what_and_why(caplog: pytest.LogCaptureFixture) -> None:
    """
    One JSON object, with nothing that could forge a second line, and none of it longer than it has to be.
    """
    with caplog.at_level(logging.INFO, logger="celery_obs.audit"):
        Audit(None, clock=lambda: 0.0).write("pause", actor="a\nb", reason="x" * 5000, channel="airbnb", seconds=60)

    (record,) = caplog.records
    line = json.loads(record.getMessage())
    assert "\n" not in record.getMessage()
    assert ("1970-01-01T00:00:00.000+00:00", "pause", "a\nb", "airbnb", "done", 60) == (
        line["at"],
        line["action"],
        line["actor"],
        line["channel"],
        line["outcome"],
        line["seconds"],
    )
    assert 500 == len(line["reason"])


def test_without_redis_there_is_the_log_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """
    The operation was done; that its entry is in the log only is told.
    """

    class Away:
        def pipeline(self, **_: object) -> object:
            raise ConnectionError

    with caplog.at_level(logging.INFO, logger="celery_obs.audit"):
        Audit(Away()).write("resume", actor="a", reason="", channel="c")  # type: ignore[arg-type]  # As much of a client as fails.

    assert ["INFO", "WARNING"] == [record.levelname for record in caplog.records]
