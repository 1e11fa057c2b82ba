"""
For your own tests: hear our events, hold the clock, read what was recorded.

With pytest, `obs_events` and `obs_samples` are fixtures::

    def test_an_order_is_seen(celery_worker, obs_events, obs_samples):
        order.delay(1).get(timeout=10)

        obs_samples.wait_for(1, "celery_task_finished_total", task="shop.order", state="success")
        assert obs_events.only(TaskFinished, task="shop.order").state == "success"

Since 0.1.
"""

from __future__ import annotations

import contextlib
import os
import time

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, overload

from celery_obs.exceptions import CeleryObsError, MissingExtraError
from celery_obs.recorder.format import folder_name, node_name
from celery_obs.recorder.reader import NodeReader
from celery_obs.vocabulary.spec import Metric


__all__ = ["FakeClock", "ObservedEvents", "ObservedSamples", "RaisingErrors", "capture_events", "counters", "observed_events"]


_E = TypeVar("_E")

_INTERNAL: Final = ("Attempt", "Publish")
"""
What the names of those events begin with by which our observers talk to each other.
"""

_MOST_SHOWN: Final = 40
_PAUSE: Final = 0.02


class FakeClock:
    """
    A clock that stands still until it is advanced.

    Args:
        now: Seconds since the epoch.

    Since 0.1.
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """
        Tell the time.
        """
        return self.now

    def advance(self, seconds: float) -> None:
        """
        Let time pass.
        """
        self.now += seconds


class RaisingErrors:
    """
    An ``on_error`` for a hub under test: errors that production would swallow are raised.

    Since 0.1.
    """

    def __call__(self, error: Exception, *, component: str) -> None:
        """
        Raise *error*.
        """
        raise error


@contextlib.contextmanager
def capture_events(*types: type) -> Iterator[list[Any]]:
    """
    Record the events of *types* that happen in this process, in order.

    Raises:
        CeleryObsError: if `celery_obs.setup` was not called.

    Since 0.1.
    """
    from celery_obs.runtime.plugin import plugin  # noqa: PLC0415 -- users of the clock alone need no Celery.

    found = plugin()
    if found is None:
        message = "capture_events() hears nothing before celery_obs.setup(app). Call that first."
        raise CeleryObsError(message)
    found.publisher_started()
    events: list[Any] = []
    for event_type in types:
        found.hub.subscribe(event_type, events.append)
    try:
        yield events
    finally:
        for event_type in types:
            found.hub.unsubscribe(event_type, events.append)


class ObservedEvents(Sequence[Any]):
    """
    Events of this process, in the order in which they happened.

    A list to read; `of` and `only` choose.  What happens in other processes, such as the children of a prefork pool, is not among them.

    Since 0.1.
    """

    def __init__(self) -> None:
        self._events: list[Any] = []

    def of(self, event_type: type[_E], **fields: object) -> list[_E]:
        """
        Return the events of a type whose fields have these values; those of the start that an event ends are its own, too.
        """
        return [event for event in self._events if type(event) is event_type and _has(event, fields)]

    def only(self, event_type: type[_E], **fields: object) -> _E:
        """
        Return the one event of a type whose fields have these values.

        Raises:
            AssertionError: if there is none, or more than one; it shows all of that type.
        """
        found = self.of(event_type, **fields)
        if len(found) == 1:
            return found[0]
        wanted = ", ".join(f"{name}={value!r}" for name, value in fields.items())
        known = "".join(f"\n  {event}" for event in self._events if type(event) is event_type) or " none."
        message = f"Expected one {event_type.__name__}({wanted}), found {len(found)}. Events of that type:{known}"
        raise AssertionError(message)

    @overload
    def __getitem__(self, at: int) -> Any: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Any]: ...

    def __getitem__(self, at: int | slice) -> Any:
        """
        Return one event, or some.
        """
        return self._events[at]

    def __len__(self) -> int:
        """
        Tell how many there are so far.
        """
        return len(self._events)

    def __repr__(self) -> str:
        """
        Show them, one a line.
        """
        return "\n".join(["<observed events>", *(f"  {event}" for event in self._events[:_MOST_SHOWN])])


def _has(event: Any, fields: Mapping[str, object]) -> bool:
    return all(_field(event, name) == value for name, value in fields.items())


def _field(event: Any, name: str) -> object:
    if name in event._fields:
        return getattr(event, name)
    started = getattr(event, "started", None)
    if name in getattr(started, "_fields", ()):
        return getattr(started, name)
    message = f"{type(event).__name__} has no field {name!r}. It has: {', '.join(event._fields)}."
    raise TypeError(message)


@contextlib.contextmanager
def observed_events() -> Iterator[ObservedEvents]:
    """
    Hear all events that happen in this process; `obs_events` is this as a fixture.

    Raises:
        CeleryObsError: if `celery_obs.setup` was not called.

    Since 0.1.
    """
    from celery_obs.areas import parts  # noqa: PLC0415 -- users of the clock alone do not need it.

    every = [
        each
        for _, part in parts("events")
        for name, each in vars(part).items()
        if isinstance(each, type) and hasattr(each, "_fields") and each.__module__ == part.__name__ and not name.startswith(_INTERNAL)
    ]
    events = ObservedEvents()
    with capture_events(*every) as heard:
        events._events = heard  # noqa: SLF001 -- of this module.
        yield events


class ObservedSamples:
    """
    The samples that an exporter would show, as they changed since this was made; `obs_samples` is this as a fixture.

    ::

        assert obs_samples("celery_task_finished_total", task="shop.order", state="success") == 1

    It reads the metric files, so that what workers in other processes recorded is there, too, if they have the same metrics directory.

    Args:
        metrics_dir: Where to look; by default where this process writes.

    Since 0.1.
    """

    def __init__(self, metrics_dir: Path | None = None) -> None:
        self._given = metrics_dir
        self._collectors: dict[Path, Any] = {}
        _activate()
        self._before = self._totals()

    def __call__(self, name: str, **labels: str) -> float:
        """
        Return by how much the samples called *name* that have *labels* grew, all together; of gauges, what they are now.
        """
        return sum(value for (sample, has), value in self._grown().items() if sample == name and labels.items() <= dict(has).items())

    def wait_for(self, expected: float, name: str, *, within: float = 10.0, **labels: str) -> None:
        """
        Wait until what workers record comes to *expected*.

        Raises:
            AssertionError: if that is not so *within* seconds; it shows what was recorded.
        """
        end = time.monotonic() + within
        while (found := self(name, **labels)) != expected:
            if time.monotonic() > end:
                wanted = ", ".join(f"{label}={value!r}" for label, value in labels.items())
                message = f"Expected {expected:g} of {name}({wanted}) within {within:g} s, found {found:g}. {self!r}"
                raise AssertionError(message)
            time.sleep(_PAUSE)

    def __repr__(self) -> str:
        """
        Show what grew, buckets of histograms left out.
        """
        lines = [
            f"  {name}({', '.join(f'{label}={value!r}' for label, value in labels)}) {value:g}"
            for (name, labels), value in sorted(self._grown().items())
            if value and name.startswith(("celery_task", "channel_")) and not name.endswith("_bucket")
        ]
        return "\n".join(["Recorded since the test began:", *lines[:_MOST_SHOWN]])

    def _grown(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        now = self._totals()
        return {key: value - (0.0 if is_gauge else self._before.get(key, (0.0, False))[0]) for key, (value, is_gauge) in now.items()}

    def _totals(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], tuple[float, bool]]:
        text_string_to_metric_families = _parser()

        from celery_obs.areas.workers.collector import WorkersCollector  # noqa: PLC0415 -- as above.
        from celery_obs.exporter.scrape import InternalErrors  # noqa: PLC0415 -- as above.

        folder = self._given or _metrics_dir()
        if not folder.is_dir():
            return {}
        collector = self._collectors.get(folder)
        if collector is None:
            collector = self._collectors[folder] = WorkersCollector(folder, errors=InternalErrors())
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): (sample.value, family.type == "gauge")
            for family in text_string_to_metric_families(collector.collect().text)
            for sample in family.samples
        }


def _parser() -> Callable[[str], Iterable[Any]]:
    try:
        from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 -- the clock needs none of this.
    except ModuleNotFoundError as error:
        feature = "Reading what tests recorded"
        raise MissingExtraError(feature, extra="exporter") from error
    return text_string_to_metric_families


def _activate() -> None:
    """
    Have this process observe from now on, not only from its first message: tests run tasks without any.
    """
    from celery_obs.runtime.plugin import plugin  # noqa: PLC0415 -- as above.

    found = plugin()
    if found is not None:
        found.publisher_started()


def _metrics_dir() -> Path:
    """
    Return where this process writes, or would.
    """
    from celery_obs.recorder.metrics_dir import default_metrics_dir  # noqa: PLC0415 -- as above.
    from celery_obs.runtime.plugin import plugin  # noqa: PLC0415 -- as above.

    found = plugin()
    if found is not None and found.settings is not None:
        return found.settings.metrics_dir
    return Path(os.environ["CELERY_OBS_METRICS_DIR"]) if os.environ.get("CELERY_OBS_METRICS_DIR") else default_metrics_dir(os.environ)


def counters(metrics_dir: Path) -> Mapping[tuple[str, tuple[str, ...]], int]:
    """
    Return what was counted into the metric files below *metrics_dir* so far: by name and label values, in steps of the metric's resolution.

    Zeros are left out.

    Since 0.1.
    """
    totals: dict[tuple[str, tuple[str, ...]], int] = {}
    for folder in metrics_dir.iterdir():
        name = node_name(folder.name)
        if name is not None:
            for metric, values, count in _counts(metrics_dir, name):
                key = (metric.name, values)
                totals[key] = totals.get(key, 0) + count
    return {key: count for key, count in totals.items() if count}


def _counts(metrics_dir: Path, name: str) -> Iterator[tuple[Metric, tuple[str, ...], int]]:
    reader = NodeReader(metrics_dir / folder_name(name))
    try:
        lanes = reader.read().lanes
        for series in reader.layout:
            if series.family.kind == "counter":
                yield series.family, series.values, lanes[series.at]
    finally:
        reader.close()
