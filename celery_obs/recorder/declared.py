"""
Metrics that users declare: counters, gauges and histograms of their own, recorded in any process, served by the same sidecar.

::

    BOOKINGS = celery_obs.metrics.counter("bookings_total", "Who sells? Bookings taken, by channel.", labels=["channel"])
    BOOKINGS.inc(channel="airbnb")

Declare at import time, where mistakes raise.  Recording never raises: what cannot be recorded is counted in ``celery_obs_dropped_total``.
Without `celery_obs.setup` nothing is recorded.  Threads and forks: safe.
"""

from __future__ import annotations

import contextlib
import math

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from celery_obs.areas.catalogue import CATALOGUE, NAMES
from celery_obs.areas.sidecar.metrics import DROPPED
from celery_obs.vocabulary.spec import Aggregate, Metric

from .series import SeriesWriter


if TYPE_CHECKING:
    from .recorder import Recorder


__all__ = ["DEFAULT_BUCKETS", "Counter", "Gauge", "Histogram", "connect", "counter", "disconnect", "gauge", "histogram"]


DEFAULT_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""
The buckets of a histogram that names none: seconds of a short call, as Prometheus clients have them.
"""

_declared: dict[str, Metric] = {}
_recorder: Recorder | None = None


def connect(recorder: Recorder) -> None:
    """
    Let declared metrics record through *recorder* from now on.
    """
    global _recorder  # noqa: PLW0603 -- one recorder a process, as one slot a process.
    _recorder = recorder


def disconnect() -> None:
    """
    Let declared metrics record nothing from now on.
    """
    global _recorder  # noqa: PLW0603 -- see connect.
    _recorder = None


class _Declared:
    """
    What the three kinds share: finding the series of a label set, and keeping what goes wrong there from the program.
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._family: SeriesWriter | None = None

    def _record(self, labels: dict[str, object], write: Callable[[SeriesWriter, tuple[str, ...]], None]) -> None:
        """
        Let *write* do its work on the series with these label values.
        """
        recorder = _recorder
        if recorder is None:
            return
        try:
            family = self._family
            if family is None or family.recorder is not recorder:
                family = self._family = SeriesWriter(recorder, self.metric)
            write(family, self._values(labels))
        except Exception:  # noqa: BLE001 -- a metric must not break the program that it measures.
            _drop(recorder)

    def _values(self, labels: dict[str, object]) -> tuple[str, ...]:
        values = tuple([str(labels[name]) for name in self.metric.labels])
        if len(labels) > len(values):
            raise KeyError
        return values


def _drop(recorder: Recorder) -> None:
    with contextlib.suppress(Exception):  # Nothing is left to try.
        recorder.count(DROPPED, ("bad_value",))


class Counter(_Declared):
    """
    A number that only grows.

    Since 0.1.
    """

    def inc(self, amount: float = 1, **labels: object) -> None:
        """
        Add *amount*, at least 0, to the series with these label values.
        """
        self._record(labels, lambda family, values: family.inc(values, amount))


class Gauge(_Declared):
    """
    A number that goes up and down.

    Since 0.1.
    """

    def set(self, value: float, **labels: object) -> None:
        """
        Set the series with these label values, for this process.
        """
        self._record(labels, lambda family, values: family.set(values, value))

    def inc(self, amount: float = 1, **labels: object) -> None:
        """
        Add *amount* to what this process has set.
        """
        self._record(labels, lambda family, values: family.add(values, amount))

    def dec(self, amount: float = 1, **labels: object) -> None:
        """
        Take *amount* from what this process has set.
        """
        self.inc(-amount, **labels)


class Histogram(_Declared):
    """
    The distribution of a measured value.

    Since 0.1.
    """

    def observe(self, value: float, **labels: object) -> None:
        """
        Count one measured value, at least 0.
        """
        self._record(labels, lambda family, values: family.observe(values, value))


_Kind = TypeVar("_Kind", bound=_Declared)


def counter(name: str, help: str, *, labels: Sequence[str] = (), resolution: float = 1e-6) -> Counter:  # noqa: A002 -- what Prometheus calls it.
    """
    Declare a counter.

    Args:
        name: Its full name, ending in ``_total``.

        help: The question that it answers.

        labels: Names of its labels; each may have 200 values (setting *label_limit*), further ones are counted as ``_other``.

        resolution: The smallest step that is kept: totals are whole numbers of it, up to 2**63.

    Raises:
        ValueError: if the name, a label or the resolution cannot work, or the name is taken by another definition.

    Since 0.1.
    """
    return _declare(Counter, Metric(kind="counter", name=name, help=help, labels=tuple(labels), resolution=resolution))


def gauge(name: str, help: str, *, labels: Sequence[str] = (), aggregate: Aggregate = "sum") -> Gauge:  # noqa: A002 -- see counter.
    """
    Declare a gauge.

    Args:
        name: Its full name.

        help: The question that it answers.

        labels: Names of its labels.

        aggregate:
            How the values of several processes become one: the *sum*, *min* or *max* of those that live, or the *mostrecent* of all.

    Raises:
        ValueError: as for `counter`.

    Since 0.1.
    """
    return _declare(Gauge, Metric(kind="gauge", name=name, help=help, labels=tuple(labels), aggregate=aggregate))


def histogram(
    name: str,
    help: str,  # noqa: A002 -- see counter.
    *,
    labels: Sequence[str] = (),
    buckets: Sequence[float] = DEFAULT_BUCKETS,
    resolution: float = 1e-6,
) -> Histogram:
    """
    Declare a histogram.

    Args:
        name: Its full name.

        help: The question that it answers.

        labels: Names of its labels.

        buckets: Upper bounds, ascending; ``+Inf`` is added.

        resolution: The smallest step that the sum keeps.

    Raises:
        ValueError: as for `counter`, and for buckets that do not ascend.

    Since 0.1.
    """
    edges = tuple(float(edge) for edge in buckets if not math.isinf(edge))
    return _declare(Histogram, Metric(kind="histogram", name=name, help=help, labels=tuple(labels), buckets=edges, resolution=resolution))


def _declare(kind: type[_Kind], metric: Metric) -> _Kind:
    known = CATALOGUE.get(metric.name) or _declared.get(metric.name, metric)
    if known != metric or metric.name in CATALOGUE:
        message = f"A metric called {metric.name} exists already:\n  {known}\nand this one differs:\n  {metric}\nGive it another name."
        raise ValueError(message)
    names = {**NAMES, **{name: other.name for other in _declared.values() for name in other.names}}
    name = metric.taken(names)
    if name is not None:
        message = f"The {metric.kind} {metric.name} is called {name} on the page, and so is {names[name]}. Give it another name."
        raise ValueError(message)
    _declared[metric.name] = metric
    return kind(metric)
