"""
PromQL from the catalogue: a few functions that write what the rules need, and refuse what the catalogue knows to be wrong.

A misspelt label, a rate of a gauge, a counter read as it stands: each is a `ConfigurationError` here, where PromQL would answer with nothing, for ever.
"""

from __future__ import annotations

import json
import re

from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

from celery_obs.exceptions import ConfigurationError
from celery_obs.vocabulary.spec import Kind, Metric


__all__ = [
    "Match",
    "Where",
    "avg_by",
    "check_labels",
    "count_of",
    "divided",
    "edge",
    "expect",
    "gauge",
    "happened",
    "increase",
    "indented",
    "matcher",
    "max_by",
    "min_by",
    "none_of",
    "not_equal",
    "one_of",
    "quantile",
    "rate",
    "ratio",
    "sum_by",
    "within",
]


_TARGET: Final = ("job", "instance")
_DURATION: Final = re.compile(r"([0-9]+(ms|[smhdwy]))+")


class Match(NamedTuple):
    """
    What a label has to be, other than equal to a text.
    """

    operator: str
    value: str


Where: TypeAlias = str | Match
"""
What a label has to be; a text stands for itself.
"""


def one_of(*values: str) -> Match:
    """
    One of *values*.
    """
    return Match("=~", "|".join(map(_literally, values)))


def none_of(*values: str) -> Match:
    """
    None of *values*.
    """
    return Match("!~", "|".join(map(_literally, values)))


def not_equal(value: str) -> Match:
    """
    Anything but *value*.
    """
    return Match("!=", value)


def gauge(metric: Metric, **where: Where) -> str:
    """
    Write a gauge's series as they stand.
    """
    expect(metric, "gauge")
    return _selector(metric, metric.name, where)


def rate(metric: Metric, window: str, **where: Where) -> str:
    """
    Write how often a counter counted, per second, over *window*.
    """
    return f"rate({_counter(metric, where)}[{_window(window)}])"


def increase(metric: Metric, window: str, **where: Where) -> str:
    """
    Write how often a counter counted in *window*.
    """
    return f"increase({_counter(metric, where)}[{_window(window)}])"


def happened(metric: Metric, window: str, *by: str, **where: Where) -> str:
    """
    Write how often a counter counted in *window*, for each of the labels *by*, its very first time included.

    A series that is born with 1 has no increase.  Where labels are not known before they are needed, such as the class of an exception,
    the first of its kind would go unseen, which for rare things is all there is.  An exporter that was away for less than an hour brings nothing new.
    """
    series = _counter(metric, where)
    return sum_by(f"({series} unless last_over_time({series}[1h] offset {_window(window)})) or increase({series}[{window}])", *by)


def count_of(metric: Metric, window: str, **where: Where) -> str:
    """
    Write how many observations a histogram had, per second, over *window*.
    """
    expect(metric, "histogram")
    return f"rate({_selector(metric, f'{metric.name}_count', where)}[{_window(window)}])"


def within(metric: Metric, bound: float, window: str, **where: Where) -> str:
    """
    Write how many observations were at most *bound*, per second, over *window*.

    Raises:
        ConfigurationError: if *bound* is no edge of a bucket.
    """
    selector = _selector(metric, f"{metric.name}_bucket", where, extra=matcher("le", edge(metric, bound)))
    return f"rate({selector}[{_window(window)}])"


def quantile(part: float, metric: Metric, window: str, *by: str, **where: Where) -> str:
    """
    Write below what value *part* of a histogram's observations were, for each of the labels *by*.
    """
    expect(metric, "histogram")
    check_labels(metric, by)
    buckets = f"rate({_selector(metric, f'{metric.name}_bucket', where)}[{_window(window)}])"
    return f"histogram_quantile({part:g}, sum by ({', '.join((*by, 'le'))}) ({buckets}))"


def sum_by(expression: str, *by: str) -> str:
    """
    Add up, for each of the labels *by*.
    """
    return _aggregated("sum", expression, by)


def max_by(expression: str, *by: str) -> str:
    """
    Take the largest, for each of the labels *by*: several exporters may show one thing.
    """
    return _aggregated("max", expression, by)


def min_by(expression: str, *by: str) -> str:
    """
    Take the smallest, for each of the labels *by*.
    """
    return _aggregated("min", expression, by)


def avg_by(expression: str, *by: str) -> str:
    """
    Take the mean, for each of the labels *by*.
    """
    return _aggregated("avg", expression, by)


def ratio(part: str, whole: str) -> str:
    """
    Divide *part* by *whole*: 0 where *whole* has no part, nothing where *whole* is 0.
    """
    return f"(\n  {indented(part)}\n  or\n  0 * {indented(whole)}\n)\n/\n({indented(whole)} > 0)"


def divided(part: str, whole: str) -> str:
    """
    Divide *part* by *whole*, on the labels that both have.
    """
    return f"{indented(part)}\n/\n{indented(whole)}"


def indented(expression: str) -> str:
    """
    Move all lines but the first to the right, to stand inside of something.
    """
    return expression.replace("\n", "\n  ")


def expect(metric: Metric, kind: Kind) -> None:
    """
    Refuse a metric of another kind.
    """
    if metric.kind != kind:
        _refuse(metric, f"is a {metric.kind}, {_UNFIT[kind]}")


_UNFIT: Final[dict[Kind, str]] = {
    "counter": "and rates and increases are of counters: they would take every fall for a restart.",
    "gauge": "whose value says nothing by itself. Take its rate or its increase.",
    "histogram": "so it has no buckets. Expected a histogram.",
}


def check_labels(metric: Metric, labels: Iterable[str]) -> None:
    """
    Refuse a label that the metric does not have; every metric has those of its target.
    """
    for label in labels:
        if label not in metric.labels and label not in _TARGET:
            has = f"It has {', '.join(metric.labels)}." if metric.labels else "It has none."
            _refuse(metric, f"has no label {label!r}. {has}")


def matcher(label: str, value: Where) -> str:
    """
    Write what *label* has to be.
    """
    match = value if isinstance(value, Match) else Match("=", value)
    return f"{label}{match.operator}{json.dumps(match.value, ensure_ascii=False)}"


def edge(metric: Metric, bound: float) -> Match:
    """
    Match the bucket of a histogram that ends at *bound*, whichever version of Prometheus wrote it: 2 keeps what was exposed, 3 writes 10.0 for 10.

    Raises:
        ConfigurationError: if no bucket ends there.
    """
    expect(metric, "histogram")
    if bound not in metric.buckets:
        edges = ", ".join(f"{each:g}" for each in metric.buckets)
        _refuse(metric, f"has no bucket that ends at {bound:g}, so how many were within that is not known. Its buckets end at {edges}.")
    text = f"{bound:g}"
    return Match("=~", text if "." in text else rf"{text}(\.0)?")


def _aggregated(operator: str, expression: str, by: Iterable[str]) -> str:
    labels = ", ".join(by)
    return f"{operator} by ({labels}) ({expression})" if labels else f"{operator}({expression})"


def _counter(metric: Metric, where: dict[str, Where]) -> str:
    expect(metric, "counter")
    return _selector(metric, metric.name, where)


def _selector(metric: Metric, name: str, where: dict[str, Where], *, extra: str = "") -> str:
    check_labels(metric, where)
    matchers = [matcher(label, value) for label, value in where.items()] + ([extra] if extra else [])
    return f"{name}{{{', '.join(matchers)}}}" if matchers else name


def _window(window: str) -> str:
    if _DURATION.fullmatch(window) is None:
        message = f"The window is {window!r}. Expected a duration such as 5m or 1h30m."
        raise ConfigurationError(message)
    return window


def _literally(value: str) -> str:
    return re.sub(r"([.+*?()\[\]{}|^$\\])", r"\\\1", value)


def _refuse(metric: Metric, problem: str) -> None:
    message = f"The metric {metric.name} {problem}"
    raise ConfigurationError(message)
