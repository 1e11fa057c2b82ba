"""
PromQL for panels: the few shapes that are right, made from metrics of the catalogue.

Each refuses a label that the metric does not have and a shape that its kind does not bear, so that a dashboard that cannot work is never written.
Ours stay on the scrape jobs that the reader has chosen, and rates are taken over the interval that Grafana finds right for the zoom.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, TypeAlias

from celery_obs.areas.catalogue import CATALOGUE
from celery_obs.vocabulary.spec import Kind, Metric


__all__ = [
    "HELD",
    "RANGE",
    "RATE",
    "Match",
    "Where",
    "age",
    "any_of",
    "chosen",
    "highest",
    "increase",
    "lowest",
    "mean",
    "none_of",
    "per_minute",
    "per_second",
    "quantile",
    "selector",
    "share",
    "total",
    "within",
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


class Match(NamedTuple):
    """
    What a label's value has to be, other than equal to a text.
    """

    operator: Literal["=", "!=", "=~", "!~"]
    value: str


Where: TypeAlias = str | Match
"""
What a label's value has to be; a text stands for itself.
"""


def chosen(variable: str) -> Match:
    """
    Match what the reader has chosen for *variable*.
    """
    return Match("=~", f"${variable}")


def any_of(*values: str) -> Match:
    """
    Match any of a few plain words.
    """
    return Match("=~", "|".join(values))


def none_of(*values: str) -> Match:
    """
    Match anything but a few plain words.
    """
    return Match("!~", "|".join(values))


def selector(metric: Metric, *, part: str = "", **where: Where) -> str:
    """
    Select series of *metric*, those of ours on the chosen jobs.

    Args:
        metric: Of the catalogue.

        part: Of a histogram, ``_bucket``, ``_sum`` or ``_count``.

        where: What its labels have to be.
    """
    _check_labels(metric, where.keys() - ({"le"} if part == "_bucket" else set()))
    matches = {name: value if isinstance(value, Match) else Match("=", value) for name, value in where.items()}
    texts = [f'{name}{match.operator}"{match.value}"' for name, match in matches.items()]
    if metric.name in CATALOGUE:
        texts.insert(0, HELD)
    return f"{metric.name}{part}{{{','.join(texts)}}}" if texts else f"{metric.name}{part}"


def per_second(metric: Metric, *by: str, over: str = RATE, part: str = "", **where: Where) -> str:
    """
    Tell how often a second.
    """
    _check_kind(metric, "histogram" if part else "counter")
    _check_labels(metric, by if part != "_bucket" else set(by) - {"le"})
    return f"sum{_by(by)} (rate({selector(metric, part=part, **where)}[{over}]))"


def per_minute(metric: Metric, *by: str, over: str = RATE, part: str = "", **where: Where) -> str:
    """
    Tell how often a minute.
    """
    return f"60 * {per_second(metric, *by, over=over, part=part, **where)}"


def increase(metric: Metric, *by: str, over: str = RANGE, part: str = "", **where: Where) -> str:
    """
    Tell how many in the time the reader looks at.
    """
    _check_kind(metric, "histogram" if part else "counter")
    _check_labels(metric, by)
    return f"sum{_by(by)} (increase({selector(metric, part=part, **where)}[{over}]))"


def share(metric: Metric, *by: str, of: dict[str, Where], over: str = RATE, **where: Where) -> str:
    """
    Tell which part of a counter's increase has the labels *of*: 0 where none had, absent where nothing happened.
    """
    part = per_second(metric, *by, over=over, part="", **{**where, **of})
    whole = per_second(metric, *by, over=over, part="", **where)
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def within(metric: Metric, seconds: float, *by: str, over: str = RATE, **where: Where) -> str:
    """
    Tell which part of a histogram's observations took no longer than *seconds*, which has to be an edge of its buckets.

    Raises:
        ValueError: if it is none.
    """
    if seconds not in metric.buckets:
        message = (
            f"{metric.name} has no bucket that ends at {seconds:g}. Its edges are {', '.join(f'{edge:g}' for edge in metric.buckets)}."
        )
        raise ValueError(message)
    # Prometheus 2 keeps an edge as it was exposed, Prometheus 3 writes 30 as 30.0.
    edge = Match("=~", rf"{seconds:g}(\\.0)?")
    fast = per_second(metric, *by, over=over, part="_bucket", le=edge, **where)
    return f"{fast} / ({per_second(metric, *by, over=over, part='_count', **where)} > 0)"


def quantile(of: float, metric: Metric, *by: str, over: str = RATE, **where: Where) -> str:
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


def highest(metric: Metric, *by: str, **where: Where) -> str:
    """
    Tell the highest of a gauge's values: for state that several exporters may show for a moment, while the lease goes from one to the other.
    """
    return _of_gauge("max", metric, by, where)


def lowest(metric: Metric, *by: str, **where: Where) -> str:
    """
    Tell the lowest of a gauge's values: for what is wrong only if it is wrong everywhere.
    """
    return _of_gauge("min", metric, by, where)


def total(metric: Metric, *by: str, **where: Where) -> str:
    """
    Add a gauge's values up, each process's or each machine's.
    """
    return _of_gauge("sum", metric, by, where)


def age(metric: Metric, *by: str, **where: Where) -> str:
    """
    Tell how long ago a gauge's newest time was.
    """
    return f"time() - {highest(metric, *by, **where)}"


def _of_gauge(operator: str, metric: Metric, by: tuple[str, ...], where: dict[str, Where]) -> str:
    _check_kind(metric, "gauge")
    _check_labels(metric, by)
    return f"{operator}{_by(by)} ({selector(metric, part='', **where)})"


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def _check_kind(metric: Metric, kind: Kind) -> None:
    if metric.kind != kind:
        message = f"{metric.name} is a {metric.kind}, and what is asked of it is for a {kind}. Use another shape, or another metric."
        raise ValueError(message)


def _check_labels(metric: Metric, labels: Iterable[str]) -> None:
    unknown = sorted(set(labels) - {*metric.labels, "job", "instance"})
    if unknown:
        known = ", ".join(metric.labels) or "none"
        message = f"{metric.name} has no label {unknown[0]!r}. Its labels are: {known}; and job and instance, which the scrape adds."
        raise ValueError(message)
