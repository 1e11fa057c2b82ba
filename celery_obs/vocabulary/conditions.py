"""
What can be wrong with workers, queues, tasks and beat: the numbers, once, from which the alerts and the exporter's health are made.

The alerts write them into PromQL, and the exporter holds its own page against them, so that the pager, ``/health`` and the status page agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias


__all__ = [
    "BEAT_ENTRY_NOT_SUCCEEDING",
    "BEAT_ENTRY_OVERDUE",
    "BEAT_STOPPED",
    "CONDITIONS",
    "LEAST_SINCE_SUCCESS",
    "METRIC_FILES_UNREADABLE",
    "QUEUE_BACKED_UP",
    "QUEUE_BACKLOG",
    "QUEUE_MESSAGES_OLD",
    "QUEUE_NOT_CONSUMED",
    "QUEUE_WITHOUT_CONSUMERS",
    "TASK_HUNG",
    "WORKERS_ABSENT",
    "WORKER_CHILDREN_DYING",
    "WORKER_DOWN",
    "WORKER_NOT_RESPONDING",
    "Area",
    "Condition",
]


Area: TypeAlias = Literal["workers", "queues", "tasks", "beat", "sidecar"]
"""
What a condition is about.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """
    Something that an alert tells and the health shows.

    Attributes:
        alert: The name of the alert, and of its runbook.

        area: What it is about.

        severity: The alert's; *critical* makes the health unhealthy, *warning* degraded.

        threshold: What the value has to be above; 0 where any is too many, and where it is so or not.

        window: Over how long a counter is looked at, as Prometheus writes it; empty where none is.

        for_: How long it has to be true before the alert fires.  The health tells it at once.
    """

    alert: str
    area: Area
    severity: Literal["critical", "warning"]
    threshold: float = 0.0
    window: str = ""
    for_: str = "0m"

    @property
    def window_seconds(self) -> float:
        """
        The window in seconds.
        """
        return float(self.window.removesuffix("m") or 0) * 60


WORKERS_ABSENT: Final = Condition(alert="CeleryWorkersAbsent", area="workers", severity="critical", for_="5m")
WORKER_DOWN: Final = Condition(alert="CeleryWorkerDown", area="workers", severity="warning", for_="15m")
WORKER_NOT_RESPONDING: Final = Condition(alert="CeleryWorkerNotResponding", area="workers", severity="critical", threshold=120.0, for_="2m")
WORKER_CHILDREN_DYING: Final = Condition(alert="CeleryWorkerChildrenDying", area="workers", severity="warning", threshold=3.0, window="15m")
QUEUE_WITHOUT_CONSUMERS: Final = Condition(alert="CeleryQueueWithoutConsumers", area="queues", severity="critical", for_="5m")
QUEUE_NOT_CONSUMED: Final = Condition(alert="CeleryQueueNotConsumed", area="queues", severity="critical", window="10m", for_="10m")
QUEUE_BACKED_UP: Final = Condition(alert="CeleryQueueBackedUp", area="queues", severity="critical", threshold=10_000.0, for_="10m")
QUEUE_BACKLOG: Final = Condition(alert="CeleryQueueBacklog", area="queues", severity="warning", threshold=1000.0, for_="15m")
QUEUE_MESSAGES_OLD: Final = Condition(alert="CeleryQueueMessagesOld", area="queues", severity="warning", threshold=600.0, for_="5m")
TASK_HUNG: Final = Condition(alert="CeleryTaskHung", area="tasks", severity="warning", threshold=3600.0, for_="5m")
BEAT_STOPPED: Final = Condition(alert="CeleryBeatStopped", area="beat", severity="critical", threshold=600.0, for_="2m")
BEAT_ENTRY_OVERDUE: Final = Condition(alert="CeleryBeatEntryOverdue", area="beat", severity="warning", threshold=300.0, for_="5m")
BEAT_ENTRY_NOT_SUCCEEDING: Final = Condition(
    alert="CeleryBeatEntryNotSucceeding", area="beat", severity="warning", threshold=3.0, for_="5m"
)
METRIC_FILES_UNREADABLE: Final = Condition(alert="CeleryObsMetricFilesUnreadable", area="sidecar", severity="warning", for_="10m")

LEAST_SINCE_SUCCESS: Final = 900
"""
Seconds that a schedule entry's last success is ago before its number of periods counts: entries of a few seconds are late all the time.
"""

CONDITIONS: Final[Mapping[str, Condition]] = {
    condition.alert: condition
    for condition in (
        WORKERS_ABSENT,
        WORKER_DOWN,
        WORKER_NOT_RESPONDING,
        WORKER_CHILDREN_DYING,
        QUEUE_WITHOUT_CONSUMERS,
        QUEUE_NOT_CONSUMED,
        QUEUE_BACKED_UP,
        QUEUE_BACKLOG,
        QUEUE_MESSAGES_OLD,
        TASK_HUNG,
        BEAT_STOPPED,
        BEAT_ENTRY_OVERDUE,
        BEAT_ENTRY_NOT_SUCCEEDING,
        METRIC_FILES_UNREADABLE,
    )
}
"""
All of them, by the alert's name, worst and most likely cause first.
"""
