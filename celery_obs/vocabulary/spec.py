"""
What a metric is: one frozen value, the same for the worker that records it, the sidecar that serves it and the generator that writes rules.
"""

from __future__ import annotations

import re

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


__all__ = ["OTHER", "Aggregate", "Kind", "Metric", "is_utf8", "valid_label", "valid_name"]


Kind = Literal["counter", "gauge", "histogram"]
"""
The three types of a Prometheus metric that we use.
"""

Aggregate = Literal["sum", "min", "max", "mostrecent"]
"""
How the gauges of several processes become one series.

*sum*, *min* and *max* look at living processes only.  *mostrecent* keeps the value that was set last, whichever process set it.
"""

OTHER = "_other"
"""
The label value that stands for all values beyond a label's limit.
"""

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_RESERVED = frozenset({"le", "quantile", "job", "instance"})


def valid_name(name: str) -> bool:
    """
    Tell whether Prometheus accepts *name* as the name of a metric in every version of its text format.
    """
    return _NAME.fullmatch(name) is not None


def is_utf8(text: str) -> bool:
    """
    Tell whether *text* can be written as UTF-8: half of a surrogate pair would spoil a whole page, and hold up all that is sent with it.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def valid_label(name: str) -> bool:
    """
    Tell whether *name* can be a label: well-formed, not reserved by Prometheus, not private.
    """
    return _LABEL.fullmatch(name) is not None and not name.startswith("__") and name not in _RESERVED


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """
    One metric family.

    Attributes:
        name: The full name, unit and ``_total`` included.

        kind: counter, gauge or histogram.

        help: The question that it answers at 3 a.m.  Two metrics that differ in this text alone are the same metric.

        labels: Label names, in the order in which values are given.

        buckets: Upper bounds of a histogram, ascending, without ``+Inf``.

        resolution:
            The smallest step that a recorded number keeps, in the metric's unit.
            Sums travel as integers of this step, so that they add up exactly: ``1e-9`` keeps nanoseconds of seconds.

        aggregate: For gauges, how the values of several processes become one.

        lint_exempt: Why a name that a linter would refuse stays as it is; empty where there is nothing to excuse.
    """

    name: str
    kind: Kind
    help: str = field(compare=False)
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    resolution: float = 1.0
    aggregate: Aggregate = "sum"
    lint_exempt: str = field(default="", compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """
        The names that it takes on a page: the family's, which OpenMetrics writes without ``_total``, and those of its samples.

        No two families of a page may share one: a parser refuses the whole page.
        """
        if self.kind == "counter":
            return self.name, self.name.removesuffix("_total")
        return (self.name, *(f"{self.name}_{each}" for each in ("bucket", "sum", "count"))) if self.kind == "histogram" else (self.name,)

    def taken(self, owners: Mapping[str, str]) -> str | None:
        """
        Return one of its `names` that is another metric's in *owners*, which has metrics by the names that they take; None if there is none.
        """
        return next((name for name in self.names if owners.get(name, self.name) != self.name), None)

    def __hash__(self) -> int:
        """
        Hash by name: hardly two metrics share one, and hashing twenty bucket edges at every look-up would cost more than comparing them once.
        """
        return hash(self.name)

    def __post_init__(self) -> None:
        """
        Refuse what Prometheus would refuse, at import instead of at the first scrape.
        """
        problem = self._problem()
        if problem:
            message = f"The metric {self.name!r} {problem}"
            raise ValueError(message)

    def _problem(self) -> str | None:
        if not valid_name(self.name):
            return "has a name that Prometheus does not accept. Expected letters, digits, _ and :, not starting with a digit."
        for label in self.labels:
            if not valid_label(label):
                return f"has a label {label!r}. Expected letters, digits and _, and none of {', '.join(sorted(_RESERVED))}."
        if len(set(self.labels)) < len(self.labels):
            return f"names a label twice: {', '.join(self.labels)}."
        if self.kind == "counter" and not self.name.endswith("_total"):
            return "is a counter, so its name has to end with _total."
        if self.kind == "histogram" and (not self.buckets or list(self.buckets) != sorted(set(self.buckets))):
            return f"is a histogram, so its buckets have to be ascending and not empty. Got {self.buckets!r}."
        if self.resolution <= 0:
            return f"has the resolution {self.resolution!r}. Expected a number above 0."
        return None
