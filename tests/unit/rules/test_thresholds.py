"""
The numbers of an alert: what is evaluated, what people read and what a team wrote are one number.
"""

from __future__ import annotations

import dataclasses
import re

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import promql_parser
import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.exceptions import ConfigurationError
from celery_obs.rules.links import Links
from celery_obs.rules.rules import Alert, Override
from celery_obs.rules.thresholds import DAY, Threshold, amount, in_promql, in_words, part, seconds
from tests.queries import problems, result_labels
from tests.unit.rules.builders import alert
from tests.unit.rules.shipped import EVERY_ALERT, KNOWN


WITH_THRESHOLD = [alert for alert in EVERY_ALERT if alert.threshold is not None]


def numbers(node: Any) -> Iterator[float]:
    """
    Go through the numbers in a parsed expression.
    """
    if type(node).__name__ == "NumberLiteral":
        yield node.val
    for name in ("lhs", "rhs", "expr"):
        if hasattr(node, name):
            yield from numbers(getattr(node, name))
    for argument in getattr(node, "args", ()):
        yield from numbers(argument)


def in_expression(expr: str) -> list[float]:
    """
    Return the numbers that Prometheus compares and reckons with.
    """
    return list(numbers(promql_parser.parse(expr)))


@st.composite
def changed_alerts(draw: st.DrawFn) -> Alert:
    """
    Draw an alert of ours with a threshold that a team may have.
    """
    alert = draw(st.sampled_from(WITH_THRESHOLD))
    assert alert.threshold is not None
    low = alert.threshold.above or Decimal(0)
    high = Decimal(1) if alert.threshold.unit == "part" else alert.threshold.below or Decimal(10**9)
    value = draw(st.decimals(low, high, places=3).filter(lambda value: low < value < high))
    return _with(alert, value)


def _with(alert: Alert, value: Decimal) -> Alert:
    assert alert.threshold is not None
    facts = {field: getattr(alert, field) for field in Alert.__slots__}
    changed = Threshold(value=value, unit=alert.threshold.unit, above=alert.threshold.above, below=alert.threshold.below)
    return Alert(**{**facts, "threshold": changed})


@given(changed_alerts())
def test_the_expression_holds_exactly_the_threshold(alert: Alert) -> None:
    """
    Whatever a team writes is what Prometheus compares with, to the last digit, and nothing else in the expression changes.
    """
    assert alert.threshold is not None
    mark = float(2**52 + 1)
    marked = in_expression(alert.expr.replace("$threshold", f"{mark:.0f}").replace("$min_events", str(alert.min_events)))

    assert mark in marked
    assert [float(alert.threshold.value) if number == mark else number for number in marked] == in_expression(alert.promql)


@given(changed_alerts())
def test_what_people_read_is_what_was_written(alert: Alert) -> None:
    """
    A text that names the threshold names it so that it can be read back as the very same number.
    """
    assert alert.threshold is not None
    spoken = alert.threshold.spoken.replace(" days", "d")

    assert "$threshold" not in "".join(alert.annotations(Links()).values())
    if "." not in spoken or alert.threshold.unit != "seconds":
        assert alert.threshold.value == alert.threshold.parsed(spoken).value


@pytest.mark.parametrize("alert", WITH_THRESHOLD, ids=lambda alert: alert.name)
def test_no_text_has_a_threshold_of_its_own(alert: Alert) -> None:
    """
    A number that was typed into a sentence would stay when the threshold is changed.
    """
    texts = f"{alert.summary} {alert.description}"

    assert [] == re.findall(r"threshold: [0-9]|[<>] ?[0-9]|above [0-9]|[0-9]%", texts)


@pytest.mark.parametrize(
    ("threshold", "text", "promql", "spoken"),
    [
        (part(0.1), "10%", "0.1", "10%"),
        (part(0.1), "0.0125", "0.0125", "1.25%"),
        (part(0.1), "100%", "1", "100%"),
        (seconds(60), "60", "60", "60s"),
        (seconds(60), "2h", "7200", "2h"),
        (seconds(60), "1h30m", "5400", "90m"),
        (seconds(60), "24h", "86400", "24h"),
        (seconds(60), "1w", "604800", "7 days"),
        (seconds(60), "300ms", "0.3", "300ms"),
        (seconds(60), "0", "0", "0s"),
        (seconds(60), "2.5", "2.5", "2.5s"),
        (amount(3), "50000", "50000", "50000"),
        (amount(3), "1234567.5", "1234567.5", "1234567.5"),
    ],
)
def test_a_threshold_is_written_as_its_kind_is(threshold: Threshold, text: str, promql: str, spoken: str) -> None:
    """
    Parts may be percent, and times may be durations.
    """
    parsed = threshold.parsed(text)

    assert (promql, spoken) == (parsed.promql, parsed.spoken)


@pytest.mark.parametrize(
    ("threshold", "text", "problem"),
    [
        (part(0.1), "10", "It is 10. Expected a part between 0 and 1, such as 0.1 or 10%."),
        (part(0.1), "101%", "It is 1.01. Expected a part between 0 and 1"),
        (part(0.1), "much", "There is 'much'. Expected a part such as 0.1 or 10%."),
        (part(0.1), "-0.1", "There is '-0.1'."),
        (amount(1), "10%", "There is '10%'. Expected a number such as 1000."),
        (amount(1), "1e3", "There is '1e3'."),
        (amount(1), "nan", "There is 'nan'."),
        (amount(1), "१", "There is '१'."),
        (seconds(1), "10 minutes", "There is '10 minutes'. Expected a duration such as 90s or 2h."),
        (seconds(1), "30m2h", "There is '30m2h'."),
        (seconds(1, below=600), "10m", "It is 10m. Expected less than 10m: beyond that the alert would never fire, or always."),
        (seconds(2 * DAY, above=DAY, below=7 * DAY), "1h", "It is 1h. Expected more than 24h and less than 7 days"),
    ],
)
def test_a_threshold_that_cannot_be_is_refused(threshold: Threshold, text: str, problem: str) -> None:
    """
    Who wrote it learns what was expected.
    """
    with pytest.raises(ConfigurationError, match=re.escape(problem)):
        threshold.parsed(text)


@given(st.decimals("0", "1e14", places=6))
def test_a_number_is_written_with_all_its_digits(value: Decimal) -> None:
    """
    No exponent, no rounding.
    """
    assert value == Decimal(in_promql(value))
    assert "E" not in in_promql(value)


@pytest.mark.parametrize(("duration", "words"), [("15m", "15 minutes"), ("1d", "1 day"), ("1h30m", "1h30m"), ("500ms", "500ms")])
def test_a_duration_is_put_into_words(duration: str, words: str) -> None:
    """
    What has no single word stays as it is.
    """
    assert words == in_words(duration)


def queue_long(**changes: Any) -> Alert:
    """
    Make an alert with a threshold.
    """
    facts: dict[str, Any] = {
        "expr": "max by (queue) (celery_queue_depth) > $threshold",
        "threshold": amount(1000),
        "for_": "15m",
        "description": "{{ $value }} wait (threshold: $threshold for $for).",
    }
    return alert(**{**facts, **changes})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"threshold": None}, "The alert QueueLong has no threshold, and its expression reads it."),
        ({"expr": "celery_queue_depth > 1"}, "The alert QueueLong has a threshold, and its expression does not read it."),
        ({"min_events": 3}, "The alert QueueLong has a min_events, and its expression does not read it."),
        ({"description": "Of $min_events."}, "The alert QueueLong names its min_events, and has none."),
        ({"severity": "high"}, "The alert QueueLong has the severity 'high'. Expected one of critical, warning, info, none."),
        ({"for_": "a while"}, "The alert QueueLong fires after 'a while'. Expected a duration such as 5m."),
        (
            {"overrides": (Override({"task": ("t",)}, amount(1)),)},
            "The alert QueueLong has an override for a task, which its result does not have: queue.",
        ),
    ],
)
def test_an_alert_whose_numbers_are_not_in_their_places_is_refused(changes: dict[str, Any], problem: str) -> None:
    """
    A threshold that is not read would be changed in vain.
    """
    with pytest.raises(ConfigurationError, match=re.escape(problem)):
        queue_long(**changes)


def test_an_exception_has_its_own_number_in_the_text() -> None:
    """
    A text about the bulk queue has the number of the bulk queue.
    """
    described = queue_long(overrides=(Override({"queue": ("bulk", 'od"d')}, amount(50_000)),)).annotations(Links())["description"]

    assert (
        '{{ $value }} wait (threshold: {{ if and (eq $labels.queue "bulk" "od\\"d") }}50000{{ else }}1000{{ end }} for 15 minutes).'
        == described
    )


@pytest.mark.parametrize("each", [each for each in EVERY_ALERT if each.by], ids=lambda each: f"{each.name}-{each.labels.get('slo', '')}")
def test_every_alert_can_have_exceptions_by_each_of_its_labels(each: Alert) -> None:
    """
    Whatever the expression is, it is still one with exceptions, and its result has the labels that it had.
    """
    elsewhere = Override({each.by[0]: ("a", "b")}, each.threshold, each.min_events)
    off = Override(dict.fromkeys(each.by, ("x",)), enabled=False)

    changed = dataclasses.replace(each, overrides=(elsewhere, off))

    assert [] == problems(changed.promql, KNOWN)
    assert result_labels(each.promql, KNOWN) == result_labels(changed.promql, KNOWN)
