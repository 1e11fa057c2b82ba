"""
The live summary: what one scrape says, as a table for a terminal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from celery_obs.areas.channels.breakers import metrics as circuit_breaker
from celery_obs.areas.channels.connections import metrics as connections
from celery_obs.areas.channels.reconciliation import metrics as reconciliation
from celery_obs.areas.channels.syncs import metrics as syncs
from celery_obs.areas.channels.tokens import metrics as tokens
from celery_obs.areas.queues import metrics as queues
from celery_obs.areas.schedules import metrics as beat
from celery_obs.areas.tasks import metrics as tasks


__all__ = ["Sample", "fitted", "has_sync_metrics", "has_task_metrics", "joined", "quantile", "read", "sections"]


_NARROWEST: Final = 8

_SHORTEST: Final = 3
"""
Lines that a section keeps as long as that is possible: its head and two more.
"""


_ENDPOINT: Final = ".token"
"""
What follows a channel's name where a breaker or a pause is that of its token endpoint.
"""


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


def sections(samples: Iterable[Sample], *, now: float) -> list[list[str]]:
    """
    Write the summary, section by section: tasks, channels, their token endpoints, queues, entries, each with its head; no line is longer than 79
    characters.  What there is nothing of is left out.
    """
    every = list(samples)
    written = (_tasks(every), _channels(every, now), _tokens(every, now), _queues(every), _entries(every, now))
    return [section for section in map(list, written) if section]


def joined(table: Sequence[Sequence[str]]) -> list[str]:
    """
    Put the sections below one another, with a line between them.
    """
    return [line for number, section in enumerate(table) for line in ([""] if number else []) + list(section)]


def fitted(table: Sequence[Sequence[str]], *, rows: int, columns: int) -> list[str]:
    """
    Make the summary fit: the longest sections lose lines at their end and say how many, then the lines between sections go, then whole sections.
    """
    left = [list(section) for section in table]
    missing = [0] * len(left)

    def lines() -> list[str]:
        return joined([section + ([f"  and {lost} more"] if lost else []) for section, lost in zip(left, missing, strict=True)])

    while len(lines()) > rows:
        longest = max(range(len(left)), key=lambda number: (len(left[number]), number))
        if len(left[longest]) <= _SHORTEST:
            break
        # The first that goes makes room for the line that says so.
        missing[longest] += 1 if missing[longest] else 2
        del left[longest][-(1 if missing[longest] > 2 else 2) :]  # noqa: PLR2004 -- the first two at once.
    fitting = lines()
    if len(fitting) > rows:
        fitting = [line for line in fitting if line]
    return [line[: max(columns, 1)] for line in fitting[: max(rows, 1)]]


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
    widths = [max(len(title) + 2, _NARROWEST) for title in columns]
    yield f"{'task':<20}" + "".join(f"{title:>{width}}" for title, width in zip(columns, widths, strict=True)) + f"{'p95':>8}"
    for task in sorted(started):
        numbers = (_number(column.get(task)) for column in columns.values())
        cells = "".join(f"{number:>{width}}" for number, width in zip(numbers, widths, strict=True))
        yield f"{task.removeprefix('channel_manager.')[:19]:<20}{cells}{_seconds(_p95(samples, task)):>8}"
    if not started:
        yield "no task has started yet"


def _p95(samples: list[Sample], task: str) -> float | None:
    by_edge = _by(samples, f"{tasks.RUNTIME.name}_bucket", "le", task=task)
    return quantile(0.95, {float(edge): count for edge, count in by_edge.items()})


def _channels(samples: list[Sample], now: float) -> Iterator[str]:
    states = _breakers(samples)
    broken = _by(samples, connections.TOTAL.name, "channel_type", status="error")
    drift = _by(samples, reconciliation.DRIFT_DAYS.name, "channel_type")
    expiries = _least(samples, tokens.EXPIRES_AT.name, "channel_type")
    done = _by(samples, syncs.TOTAL.name, "channel_type")
    failed = _by(samples, syncs.TOTAL.name, "channel_type", status="failure")
    only_tokens = _by(samples, tokens.REFRESH_TOTAL.name, "channel_type").keys()
    yield f"{'channel':<16}{'breaker':>10}{'syncs':>9}{'failed':>8}{'drift':>8}{'accounts':>14}{'next token':>13}"
    for channel in sorted(done.keys() | {each for each in states if not each.endswith(_ENDPOINT)} - only_tokens):
        days = f"{drift[channel]:.0f} d" if channel in drift else "-"
        counts = f"{_number(done.get(channel)):>9}{_number(failed.get(channel)):>8}"
        accounts, expiry = _accounts(broken.get(channel)), _expiry(expiries.get(channel), now)
        yield f"{channel[:15]:<16}{states.get(channel, '-'):>10}{counts}{days:>8}{accounts:>14}{expiry:>13}"


def _tokens(samples: list[Sample], now: float) -> Iterator[str]:
    states = _breakers(samples)
    broken = _by(samples, connections.TOTAL.name, "channel_type", status="error")
    expiries = _least(samples, tokens.EXPIRES_AT.name, "channel_type")
    columns = {
        title: _by(samples, tokens.REFRESH_TOTAL.name, "channel_type", status=status)
        for title, status in (("refreshed", "success"), ("failed", "failure"), ("refused", "refused"))
    }
    channels = sorted({channel for column in columns.values() for channel in column})
    if channels:
        titles = "".join(f"{title:>{len(title) + 2}}" for title in columns)
        yield f"{'token endpoint':<16}{'breaker':>10}{titles}{'accounts':>14}{'next token':>13}"
    for channel in channels:
        counts = "".join(f"{_number(column.get(channel)):>{len(title) + 2}}" for title, column in columns.items())
        accounts, expiry = _accounts(broken.get(channel)), _expiry(expiries.get(channel), now)
        yield f"{channel[:15]:<16}{states.get(channel + _ENDPOINT, '-'):>10}{counts}{accounts:>14}{expiry:>13}"


def _breakers(samples: list[Sample]) -> dict[str, str]:
    states = {channel: _state(value) for channel, value in _by(samples, circuit_breaker.STATE.name, "channel_type").items()}
    paused = {channel: "paused" for channel, value in _by(samples, connections.PAUSED.name, "channel_type").items() if value}
    return {**states, **paused}


def _accounts(broken: float | None) -> str:
    return "-" if broken is None else f"{broken:.0f} in error" if broken else "fine"


def _expiry(at: float | None, now: float) -> str:
    return "-" if at is None else f"in {max(at - now, 0.0):.0f} s"


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
