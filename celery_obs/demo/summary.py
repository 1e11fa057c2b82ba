"""
The live summary: what one scrape says, as a table for a terminal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from celery_obs.vocabulary import beat, circuit_breaker, connections, queues, reconciliation, syncs, tasks, tokens


__all__ = ["Sample", "has_sync_metrics", "has_task_metrics", "quantile", "read", "render"]


class Sample(NamedTuple):
    """
    One line of a scrape.
    """

    name: str
    labels: Mapping[str, str]
    value: float


def read(text: str) -> list[Sample]:
    """
    Parse a scrape in the text format.
    """
    return [Sample(each.name, each.labels, each.value) for family in text_string_to_metric_families(text) for each in family.samples]


def has_task_metrics(samples: Iterable[Sample]) -> bool:
    """
    Tell whether any task was seen to start.
    """
    return any(each.name == tasks.STARTED.name and each.value > 0 for each in samples)


def has_sync_metrics(samples: Iterable[Sample]) -> bool:
    """
    Tell whether any sync was seen to end.
    """
    return any(each.name == syncs.TOTAL.name and each.value > 0 for each in samples)


def quantile(q: float, buckets: Mapping[float, float]) -> float | None:
    """
    Estimate the *q*-quantile from cumulative *buckets*, as Prometheus does; None without observations.
    """
    edges = sorted(buckets)
    if not edges or buckets[edges[-1]] <= 0:
        return None
    rank = q * buckets[edges[-1]]
    low, below = 0.0, 0.0
    for edge in edges:
        if buckets[edge] >= rank:
            if edge == float("inf"):
                return low
            inside = buckets[edge] - below
            return low + (edge - low) * ((rank - below) / inside if inside else 1.0)
        low, below = edge, buckets[edge]
    return low


def render(samples: Iterable[Sample], *, now: float) -> list[str]:
    """
    Write the summary, line by line.
    """
    every = list(samples)
    return [*_tasks(every), "", *_channels(every, now), "", *_queues(every), "", *_entries(every, now)]


def _by(samples: Iterable[Sample], name: str, label: str, **wanted: str) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for each in samples:
        if each.name == name and all(each.labels.get(key) == value for key, value in wanted.items()):
            sums[each.labels.get(label, "")] += each.value
    return dict(sums)


def _tasks(samples: list[Sample]) -> Iterator[str]:
    started = {task: count for task, count in _by(samples, tasks.STARTED.name, "task").items() if count}
    columns: dict[str, dict[str, float]] = {
        "started": started,
        "succeeded": _by(samples, tasks.FINISHED.name, "task", state="success"),
        "failed": _by(samples, tasks.FINISHED.name, "task", state="failure"),
        "retried": _by(samples, tasks.FINISHED.name, "task", state="retry"),
        "lost": _by(samples, tasks.FINISHED.name, "task", state="lost"),
        "running": _by(samples, tasks.IN_PROGRESS.name, "task"),
    }
    yield f"{'task':<24}" + "".join(f"{title:>10}" for title in columns) + f"{'p95':>10}"
    for task in sorted(started):
        cells = "".join(f"{_number(column.get(task)):>10}" for column in columns.values())
        yield f"{task.removeprefix('channel_manager.')[:24]:<24}{cells}{_seconds(_p95(samples, task)):>10}"
    if not started:
        yield "no task has started yet"


def _p95(samples: list[Sample], task: str) -> float | None:
    by_edge = _by(samples, f"{tasks.RUNTIME.name}_bucket", "le", task=task)
    return quantile(0.95, {float(edge): count for edge, count in by_edge.items()})


def _channels(samples: list[Sample], now: float) -> Iterator[str]:
    states = _by(samples, circuit_breaker.STATE.name, "channel_type")
    paused = _by(samples, connections.PAUSED.name, "channel_type")
    broken = _by(samples, connections.TOTAL.name, "channel_type", status="error")
    drift = _by(samples, reconciliation.DRIFT_DAYS.name, "channel_type")
    expiries = _least(samples, tokens.EXPIRES_AT.name, "channel_type")
    done = _by(samples, syncs.TOTAL.name, "channel_type")
    failed = _by(samples, syncs.TOTAL.name, "channel_type", status="failure")
    yield f"{'channel':<18}{'breaker':>11}{'syncs':>9}{'failed':>9}{'drift':>9}{'accounts':>15}{'next token':>13}"
    for channel in sorted(done.keys() | states.keys()):
        state = "paused" if paused.get(channel) else _state(states.get(channel))
        days = f"{drift[channel]:.0f} d" if channel in drift else "-"
        accounts = "-" if channel not in broken else "fine" if not broken[channel] else f"{broken[channel]:.0f} in error"
        expiry = f"in {max(expiries[channel] - now, 0.0):.0f} s" if channel in expiries else "-"
        counts = f"{_number(done.get(channel)):>9}{_number(failed.get(channel)):>9}"
        yield f"{channel[:18]:<18}{state:>11}{counts}{days:>9}{accounts:>15}{expiry:>13}"


def _state(value: float | None) -> str:
    known = value is not None and 0 <= value < len(circuit_breaker.STATES)
    return circuit_breaker.STATES[int(value)] if known and value is not None else "-"


def _least(samples: Iterable[Sample], name: str, label: str) -> dict[str, float]:
    least: dict[str, float] = {}
    for each in samples:
        if each.name == name:
            key = each.labels.get(label, "")
            least[key] = min(least.get(key, each.value), each.value)
    return least


def _queues(samples: list[Sample]) -> Iterator[str]:
    depth = _by(samples, queues.DEPTH.name, "queue")
    oldest = _by(samples, queues.OLDEST_MESSAGE_AGE.name, "queue")
    yield f"{'queue':<18}{'depth':>10}{'oldest':>10}"
    for queue in sorted(depth.keys() | oldest.keys()):
        yield f"{queue[:18]:<18}{_number(depth.get(queue)):>10}{_seconds(oldest.get(queue)):>10}"


def _entries(samples: list[Sample], now: float) -> Iterator[str]:
    fired = _by(samples, beat.ENTRY_LAST_FIRED.name, "entry")
    overdue = _by(samples, beat.ENTRY_OVERDUE.name, "entry")
    yield f"{'beat entry':<28}{'fired':>12}{'overdue':>10}"
    for entry in sorted(fired.keys() | overdue.keys()):
        ago = f"{_seconds(max(now - fired[entry], 0.0))} ago" if fired.get(entry) else "-"
        yield f"{entry.removeprefix('celery_obs.')[:28]:<28}{ago:>12}{_seconds(overdue.get(entry)):>10}"


def _number(value: float | None) -> str:
    # What was not read is not zero.
    return "-" if value is None else f"{value:.0f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
