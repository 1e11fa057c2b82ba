"""
What is wrong with a query, as far as the catalogue can tell: PromQL's own parser takes it apart, and every metric and label in it has to exist.

Prometheus answers a misspelt label with nothing, and it goes unnoticed until the night on which an alert should have fired.
"""

from __future__ import annotations

import re

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import promql_parser

from celery_obs.areas.catalogue import CATALOGUE
from celery_obs.rules.rules import RecordingRule
from celery_obs.rules.third_party import FOREIGN
from celery_obs.vocabulary.spec import Metric


__all__ = ["Series", "known_series", "problems", "result_labels"]


TARGET: Final = frozenset({"job", "instance"})
"""
Labels that Prometheus adds to whatever it scrapes.
"""

_GRAFANA: Final = re.compile(r"\$(__rate_interval|__interval|__range)|\$\{(__rate_interval|__interval|__range)\}")
_OF_COUNTERS: Final = frozenset({"rate", "increase", "irate", "resets", "count_over_time", "present_over_time"})
_OF_NOTHING: Final = frozenset({"time", "vector", "scalar", "pi"})


class Series(NamedTuple):
    """
    What stands in a query under a name.
    """

    counts: bool
    labels: frozenset[str]


def known_series(records: Iterable[RecordingRule] = (), metrics: Iterable[Metric] = ()) -> Mapping[str, Series]:
    """
    Return every name that a query may use: of the catalogue, of others, and of recording rules.
    """
    known = {"ALERTS": Series(counts=False, labels=frozenset({"alertname", "alertstate", "severity"}))}
    for metric in (*CATALOGUE.values(), *FOREIGN.values(), *metrics):
        labels = frozenset(metric.labels) | TARGET
        if metric.kind != "histogram":
            known[metric.name] = Series(counts=metric.kind == "counter", labels=labels)
            continue
        for suffix in ("_count", "_sum"):
            known[metric.name + suffix] = Series(counts=True, labels=labels)
        known[f"{metric.name}_bucket"] = Series(counts=True, labels=labels | {"le"})
    for record in records:
        known[record.name] = Series(counts=False, labels=frozenset(record.by) | record.labels.keys())
    return known


def problems(query: str, known: Mapping[str, Series]) -> list[str]:
    """
    Tell what is wrong with *query*; nothing, if the list is empty.
    """
    try:
        tree = promql_parser.parse(_GRAFANA.sub("5m", query))
    except ValueError as error:
        return [f"it is no PromQL: {error}"]
    return list(_Checker(known).visit(tree))


def result_labels(query: str, known: Mapping[str, Series]) -> frozenset[str]:
    """
    Return the labels that the result of *query* has.
    """
    return _Checker(known).labels(promql_parser.parse(_GRAFANA.sub("5m", query)))


class _Checker:
    def __init__(self, known: Mapping[str, Series]) -> None:
        self._known = known

    # -- what is wrong -------------------------------------------------------------------------------------------------

    def visit(self, node: Any, *, function: str = "") -> Iterator[str]:
        """
        Go through *node*; *function* is what is applied to a range.
        """
        kind = type(node).__name__
        if kind == "VectorSelector":
            yield from self._selector(node, function)
        elif kind == "MatrixSelector":
            yield from self._selector(node.vector_selector, function or "a range")
        elif kind == "AggregateExpr":
            yield from self.visit(node.expr)
            yield from self._missing(node.modifier.labels if node.modifier else (), node.expr, "is aggregated by")
        elif kind == "Call":
            yield from self._call(node)
        elif kind == "BinaryExpr":
            yield from self._binary(node)
        elif kind in {"ParenExpr", "UnaryExpr", "SubqueryExpr"}:
            yield from self.visit(node.expr)

    def _selector(self, node: Any, function: str) -> Iterator[str]:
        series = self._known.get(node.name)
        if series is None:
            yield f"there is no metric {node.name}"
            return
        for matcher in node.matchers.matchers:
            if matcher.name not in series.labels:
                yield f"{node.name} has no label {matcher.name}"
        if series.counts and function not in _OF_COUNTERS:
            yield f"the counter {node.name} is read by {function or 'nothing'}, not by rate or increase"
        if not series.counts and function in {"rate", "increase", "irate"}:
            yield f"{function} of {node.name}, which is no counter"

    def _call(self, node: Any) -> Iterator[str]:
        for argument in node.args:
            yield from self.visit(argument, function=node.func.name)
        if node.func.name == "histogram_quantile" and "le" not in self.labels(node.args[1]):
            yield "histogram_quantile has lost its le"

    def _binary(self, node: Any) -> Iterator[str]:
        if _is_birth(node):
            return
        yield from self.visit(node.lhs)
        yield from self.visit(node.rhs)
        if _is_scalar(node.lhs) or _is_scalar(node.rhs) or str(node.op) == "or":
            return
        modifier = node.modifier
        if modifier and modifier.matching and str(modifier.matching.type).endswith("Include"):
            for side in (node.lhs, node.rhs):
                yield from self._missing(modifier.matching.labels, side, "is matched on")
        elif (left := self.labels(node.lhs)) != (right := self.labels(node.rhs)):
            yield f"{node.op} never matches: {sorted(left)} on the left, {sorted(right)} on the right"

    def _missing(self, labels: Iterable[str], node: Any, how: str) -> Iterator[str]:
        there = self.labels(node)
        for label in labels:
            if label not in there:
                yield f"something {how} {label}, and has {sorted(there)}"

    # -- what comes out ------------------------------------------------------------------------------------------------

    def labels(self, node: Any) -> frozenset[str]:
        """
        Return the labels of what *node* results in.
        """
        kind = type(node).__name__
        if kind == "MatrixSelector":
            return self.labels(node.vector_selector)
        if kind == "VectorSelector":
            series = self._known.get(node.name)
            return series.labels if series else frozenset()
        if kind == "AggregateExpr":
            return self._aggregated(node)
        if kind == "Call":
            return self._called(node)
        if kind == "BinaryExpr":
            return self._combined(node)
        return self.labels(node.expr) if hasattr(node, "expr") else frozenset()

    def _aggregated(self, node: Any) -> frozenset[str]:
        inner = self.labels(node.expr)
        if str(node.op) in {"topk", "bottomk"}:
            return inner
        if not node.modifier:
            return frozenset()
        named = frozenset(node.modifier.labels)
        return inner - named if str(node.modifier.type).endswith("Without") else named

    def _called(self, node: Any) -> frozenset[str]:
        name = node.func.name
        if name in _OF_NOTHING or name.startswith("absent"):
            return frozenset()
        inner: frozenset[str] = frozenset().union(*(self.labels(argument) for argument in node.args))
        if name == "label_replace":
            return inner | {node.args[1].val}
        return inner - {"le"} if name == "histogram_quantile" else inner

    def _combined(self, node: Any) -> frozenset[str]:
        if _is_scalar(node.lhs):
            return self.labels(node.rhs)
        if str(node.op) == "or":
            return self.labels(node.lhs) | self.labels(node.rhs)
        return self.labels(node.lhs)


def _is_birth(node: Any) -> bool:
    """
    Tell whether this is how a new series is seen: a counter, unless there was something of it before.
    """
    if str(node.op) != "unless" or type(node.rhs).__name__ != "Call" or node.rhs.func.name != "last_over_time":
        return False
    now, before = node.lhs, node.rhs.args[0].vector_selector
    if type(now).__name__ != "VectorSelector" or now.offset:
        return False
    return bool(before.offset) and now.name == before.name and str(now.matchers) == str(before.matchers)


def _is_scalar(node: Any) -> bool:
    kind = type(node).__name__
    if kind in {"ParenExpr", "UnaryExpr"}:
        return _is_scalar(node.expr)
    if kind == "BinaryExpr":
        return _is_scalar(node.lhs) and _is_scalar(node.rhs)
    return kind == "NumberLiteral" or (kind == "Call" and node.func.name in {"time", "scalar", "pi"})
