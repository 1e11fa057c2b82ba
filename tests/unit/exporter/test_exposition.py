"""
Formats, encodings and the choice between them.
"""

from __future__ import annotations

import pytest

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from celery_obs.areas.queues import metrics as queues
from celery_obs.areas.sidecar import metrics as ourselves
from celery_obs.areas.tasks import metrics as tasks
from celery_obs.exporter.exposition import accepts_gzip, accepts_openmetrics, family, render


_PROMETHEUS_2 = "application/openmetrics-text;version=1.0.0;q=0.75,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.25,*/*;q=0.1"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        (_PROMETHEUS_2, True),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0; q=0.1, text/plain; q=0.9", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;version=9.0.0", False),
        ("application/openmetrics-text;q=nonsense, text/plain", False),
        ("APPLICATION/OpenMetrics-Text ; Version=1.0.0", True),
    ],
)
def test_the_format_follows_the_accept_header(accept: str, expected: bool) -> None:
    """
    OpenMetrics goes to who asks for it at least as much as for text.
    """
    assert expected is accepts_openmetrics(accept)


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("", False),
        ("gzip", True),
        ("gzip;q=0", False),
        ("deflate, gzip;q=0.5", True),
        ("*", True),
        ("*, gzip;q=0", False),
        ("identity", False),
    ],
)
def test_gzip_goes_to_who_takes_it(accepted: str, expected: bool) -> None:
    """
    Weights count, and a weight of 0 means no.
    """
    assert expected is accepts_gzip(accepted)


def test_both_formats_say_the_same_and_the_end_mark_is_left_to_the_page() -> None:
    """
    A counter is named after the standard of each format, and label values are escaped.
    """
    page = render([family(ourselves.INTERNAL_ERRORS, [(('a"\n\\',), 2)]), family(queues.DEPTH, [(("q",), 1)]), family(queues.UNACKED, [])])

    assert "# TYPE celery_obs_internal_errors_total counter\n" in page.text
    assert "# TYPE celery_obs_internal_errors counter\n" in page.openmetrics
    assert 'celery_obs_internal_errors_total{component="a\\"\\n\\\\"} 2.0\n' in page.text
    assert "# EOF" not in page.openmetrics
    assert "celery_queue_unacked" not in page.text
    assert 2 == len(list(text_string_to_metric_families(page.openmetrics + "# EOF\n")))


def test_a_wrong_number_of_labels_is_a_bug_that_shows() -> None:
    """
    Too few label values are refused rather than shown under the wrong name.
    """
    with pytest.raises(ValueError, match="shorter"):
        family(queues.PRIORITY_DEPTH, [(("q",), 1)])
    with pytest.raises(ValueError, match="histogram"):
        family(tasks.RUNTIME, [])
