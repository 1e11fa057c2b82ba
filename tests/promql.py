"""
PromQL as tests read it: which series an expression asks for, and what it does to them.
"""

from __future__ import annotations

import re

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import promql_parser

from celery_obs.vocabulary.spec import Metric


__all__ = ["Asked", "asked_of", "problems_of", "without_variables"]


_TARGET = {"job", "instance"}
_COUNTING = {"rate", "increase", "irate", "resets"}
_DURATIONS = {"$__rate_interval": "5m", "$__range": "1h", "$__interval": "1m"}


class Asked(NamedTuple):
    """
    A selector, and what stands around it.

    Attributes:
        name: Of the series, as exposed.

        labels: That it matches on.

        around: Functions and aggregations around it, from the outside in.
    """

    name: str
    labels: frozenset[str]
    around: tuple[Any, ...]


def without_variables(expr: str, values: Mapping[str, str] | None = None) -> str:
    """
    Put durations and texts in the place of Grafana's variables, so that *expr* is PromQL.
    """
    for name, duration in _DURATIONS.items():
        expr = expr.replace(name, duration)
    return re.sub(r"\$([a-z_]+)", lambda match: (values or {}).get(match[1], ".*"), expr)


def asked_of(expr: str) -> Iterator[Asked]:
    """
    Go through the selectors of *expr*.

    Raises:
        ValueError: if it is no PromQL.
    """
    yield from _walk(promql_parser.parse(expr), ())


def _walk(node: Any, around: tuple[Any, ...]) -> Iterator[Asked]:
    if isinstance(node, promql_parser.MatrixSelector):
        node = node.vector_selector
    if isinstance(node, promql_parser.VectorSelector):
        named = [matcher for matcher in node.matchers.matchers if matcher.name != "__name__"]
        yield Asked(node.name or "", frozenset(matcher.name for matcher in named), around)
    elif isinstance(node, promql_parser.BinaryExpr):
        yield from _walk(node.lhs, around)
        yield from _walk(node.rhs, around)
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from _walk(argument, (*around, node))
    elif isinstance(node, promql_parser.AggregateExpr):
        yield from _walk(node.expr, (*around, node))
    elif isinstance(node, (promql_parser.ParenExpr, promql_parser.UnaryExpr, promql_parser.SubqueryExpr)):
        yield from _walk(node.expr, around)


def problems_of(expr: str, known: Mapping[str, Metric], recorded: Mapping[str, frozenset[str]]) -> list[str]:
    """
    Tell what is wrong with *expr*: series that nobody makes, labels that they do not have, counters read as they stand, quantiles that lost their buckets.

    Args:
        expr: PromQL without Grafana's variables.

        known: Metrics by name.

        recorded: What recording rules make: the labels, by the name of the series.
    """
    return [problem for asked in asked_of(expr) for problem in _problems(asked, known, recorded)]


def _problems(asked: Asked, known: Mapping[str, Metric], recorded: Mapping[str, frozenset[str]]) -> Iterator[str]:
    if asked.name in recorded:
        labels, counts, buckets = set(recorded[asked.name]), False, False
    else:
        metric, part = _metric_of(asked.name, known)
        if metric is None:
            yield f"nothing makes {asked.name}"
            return
        if metric.kind == "histogram" and not part:
            yield f"{asked.name} is a histogram, and has no series of that name"
        buckets = part == "_bucket"
        counts = metric.kind == "counter" or bool(part)
        labels = {*metric.labels, *_TARGET} | ({"le"} if buckets else set())
    functions = {node.func.name for node in asked.around if isinstance(node, promql_parser.Call)}
    kept = set(labels)
    for node in reversed(asked.around):
        if isinstance(node, promql_parser.AggregateExpr):
            by = set(node.modifier.labels) if node.modifier else set()
            yield from (f"{asked.name} has no label {label} to aggregate by" for label in sorted(by - labels))
            kept &= by
        elif node.func.name == "histogram_quantile" and "le" not in kept:
            yield f"the quantile of {asked.name} lost le"
    yield from (f"{asked.name} has no label {label}" for label in sorted(asked.labels - labels))
    if counts and not functions & _COUNTING:
        yield f"{asked.name} counts, and is read as it stands"
    if not counts and functions & _COUNTING:
        yield f"{asked.name} does not count, and is read as if it did"


def _metric_of(name: str, known: Mapping[str, Metric]) -> tuple[Metric | None, str]:
    for part in ("_bucket", "_sum", "_count"):
        metric = known.get(name.removesuffix(part)) if name.endswith(part) else None
        if metric is not None and metric.kind == "histogram":
            return metric, part
    return known.get(name), ""
