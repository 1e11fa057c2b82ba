"""
PromQL for panels: the few shapes that are right, made from metrics of the catalogue.

Each refuses a label that the metric does not have and a shape that its kind does not bear, so that a dashboard that cannot work is never written.
Ours stay on the scrape jobs that the reader has chosen, and rates are taken over the interval that Grafana finds right for the zoom.
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.catalogue import CATALOGUE
from celery_obs.rules.promql import Match, Where, check_labels, edge, expect, matcher
from celery_obs.vocabulary.spec import Metric


__all__ = [
    "HELD",
    "RANGE",
    "RATE",
    "age",
    "chosen",
    "increase_of",
    "max_of",
    "mean",
    "min_of",
    "per_minute",
    "per_second",
    "quantile_of",
    "ratio_of",
    "ratio_within",
    "selector",
    "sum_of",
]


RATE: Final = "$__rate_interval"
"""
The window of a rate: at least four scrapes, and wider when the reader looks at weeks.
"""

RANGE: Final = "$__range"
"""
The whole time that the reader looks at.
"""

HELD: Final = 'job=~"$job"'
"""
The matcher that keeps a query on the chosen scrape jobs.
"""


def chosen(variable: str) -> Match:
    """
    Match what the reader has chosen for *variable*.
    """
    return Match("=~", f"${variable}")


def selector(metric: Metric, *, part: str = "", **where: Where) -> str:
    """
    Select series of *metric*, those of ours on the chosen jobs.

    Args:
        metric: Of the catalogue.

        part: Of a histogram, ``_bucket``, ``_sum`` or ``_count``.

        where: What its labels have to be.
    """
    check_labels(metric, where.keys() - ({"le"} if part == "_bucket" else set()))
    texts = [matcher(label, value) for label, value in where.items()]
    if metric.name in CATALOGUE:
        texts.insert(0, HELD)
    return f"{metric.name}{part}{{{','.join(texts)}}}" if texts else f"{metric.name}{part}"


def per_second(metric: Metric, *by: str, over: str = RATE, part: str = "", **where: Where) -> str:
    """
    Tell how often a second.
    """
    expect(metric, "histogram" if part else "counter")
    check_labels(metric, by if part != "_bucket" else set(by) - {"le"})
    return f"sum{_by(by)} (rate({selector(metric, part=part, **where)}[{over}]))"


def per_minute(metric: Metric, *by: str, over: str = RATE, part: str = "", **where: Where) -> str:
    """
    Tell how often a minute.
    """
    return f"60 * {per_second(metric, *by, over=over, part=part, **where)}"


def increase_of(metric: Metric, *by: str, over: str = RANGE, part: str = "", **where: Where) -> str:
    """
    Tell how many in the time the reader looks at.
    """
    expect(metric, "histogram" if part else "counter")
    check_labels(metric, by)
    return f"sum{_by(by)} (increase({selector(metric, part=part, **where)}[{over}]))"


def ratio_of(metric: Metric, *by: str, of: dict[str, Where], over: str = RATE, **where: Where) -> str:
    """
    Tell which part of a counter's increase has the labels *of*: 0 where none had, absent where nothing happened.
    """
    part = per_second(metric, *by, over=over, part="", **{**where, **of})
    whole = per_second(metric, *by, over=over, part="", **where)
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def ratio_within(metric: Metric, seconds: float, *by: str, over: str = RATE, **where: Where) -> str:
    """
    Tell which part of a histogram's observations took no longer than *seconds*, which has to be an edge of its buckets.

    Raises:
        ConfigurationError: if it is none.
    """
    fast = per_second(metric, *by, over=over, part="_bucket", le=edge(metric, seconds), **where)
    return f"{fast} / ({per_second(metric, *by, over=over, part='_count', **where)} > 0)"


def quantile_of(of: float, metric: Metric, *by: str, over: str = RATE, **where: Where) -> str:
    """
    Tell under which value the part *of* of a histogram's observations lies; absent where there were none, which Prometheus has as NaN.
    """
    return f"histogram_quantile({of}, {per_second(metric, 'le', *by, over=over, part='_bucket', **where)}) >= 0"


def mean(metric: Metric, *by: str, over: str = RATE, **where: Where) -> str:
    """
    Tell the mean of a histogram's observations; absent where there were none.
    """
    count = per_second(metric, *by, over=over, part="_count", **where)
    return f"{per_second(metric, *by, over=over, part='_sum', **where)} / ({count} > 0)"


def max_of(metric: Metric, *by: str, **where: Where) -> str:
    """
    Tell the highest of a gauge's values: for state that several exporters may show for a moment, while the lease goes from one to the other.
    """
    return _of_gauge("max", metric, by, where)


def min_of(metric: Metric, *by: str, **where: Where) -> str:
    """
    Tell the lowest of a gauge's values: for what is wrong only if it is wrong everywhere.
    """
    return _of_gauge("min", metric, by, where)


def sum_of(metric: Metric, *by: str, **where: Where) -> str:
    """
    Add a gauge's values up, each process's or each machine's.
    """
    return _of_gauge("sum", metric, by, where)


def age(metric: Metric, *by: str, **where: Where) -> str:
    """
    Tell how long ago a gauge's newest time was.
    """
    return f"time() - {max_of(metric, *by, **where)}"


def _of_gauge(operator: str, metric: Metric, by: tuple[str, ...], where: dict[str, Where]) -> str:
    expect(metric, "gauge")
    check_labels(metric, by)
    return f"{operator}{_by(by)} ({selector(metric, part='', **where)})"


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""
