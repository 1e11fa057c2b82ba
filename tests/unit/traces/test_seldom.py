"""
What exporters say, once a minute.
"""

from __future__ import annotations

import logging

from celery_obs.telemetry.traces.provider import _exporter_class
from celery_obs.telemetry.traces.seldom import Seldom
from celery_obs.testing import FakeClock


def record(level: int) -> logging.LogRecord:
    return logging.LogRecord("exporter", level, __file__, 1, "Failed to export span batch", None, None)


def test_a_collector_that_is_away_is_one_line_a_minute() -> None:
    """
    Of each level, the first record passes, and the next a minute later.
    """
    clock = FakeClock()
    seldom = Seldom(clock=clock)

    first = [seldom.filter(record(level)) for level in (logging.ERROR, logging.ERROR, logging.WARNING)]
    clock.advance(59)
    before = seldom.filter(record(logging.ERROR))
    clock.advance(2)

    assert ([True, False, True], False, True) == (first, before, seldom.filter(record(logging.ERROR)))


def test_the_exporter_of_otlp_is_held_back_once() -> None:
    """
    However often an exporter is made, its logger has one filter.
    """
    for _ in range(2):
        made = _exporter_class("otlp")
    assert made is not None

    filters = logging.getLogger(made.__module__).filters

    assert 1 == sum(isinstance(each, Seldom) for each in filters)
