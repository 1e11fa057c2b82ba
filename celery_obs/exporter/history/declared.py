"""
What an area has remembered: its part ``history`` has values of `Remembered` in ``REMEMBERED``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from celery_obs.vocabulary.spec import Metric


__all__ = ["Among", "Fold", "Name", "Remembered"]


Fold = Literal["last", "max", "min"]
"""
Which of the values of a minute is kept for two hours: the one that was seen last, the highest or the lowest.
"""

Among = Literal["sum", "max", "min"]
"""
What becomes of several series of a page that are one in the history.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """
    A metric that is remembered.

    Attributes:
        metric: The metric.  Of a histogram the sum and the count are remembered, which tell the mean; its buckets are not.

        by: Which of its labels are told apart; all by default.

        among: What becomes of series that only the other labels tell apart.

        fold: What is kept of a minute; of what only grows, the last value, so that rates over hours are exact.

        skips_zeros: Whether a series takes no room before it was other than 0.

        weight: How large its share of the room is, from 1 to 16.
    """

    metric: Metric
    by: tuple[str, ...] | None = None
    among: Among = "sum"
    fold: Fold = "last"
    skips_zeros: bool = False
    weight: int = 1

    def __post_init__(self) -> None:
        """
        Refuse what could not be kept.
        """
        unknown = set(self.labels) - set(self.metric.labels)
        if unknown:
            message = f"{self.metric.name} has no label {', '.join(sorted(unknown))}. Expected some of {', '.join(self.metric.labels)}."
            raise ValueError(message)
        if self.grows and (self.fold, self.among) != ("last", "sum"):
            message = f"{self.metric.name} only grows, so of a minute its last value is kept, and of several series their sum."
            raise ValueError(message)
        if not 1 <= self.weight <= 16:  # noqa: PLR2004 -- as said.
            message = f"The weight of {self.metric.name} is {self.weight}. Expected a number from 1 to 16."
            raise ValueError(message)

    @property
    def labels(self) -> tuple[str, ...]:
        """
        The labels that are told apart.
        """
        return self.metric.labels if self.by is None else self.by

    @property
    def grows(self) -> bool:
        """
        Whether it is a number that only grows, of which rates are of interest.
        """
        return self.metric.kind != "gauge"

    @property
    def samples(self) -> tuple[str, ...]:
        """
        What its series are called on the page.
        """
        name = self.metric.name
        return (f"{name}_sum", f"{name}_count") if self.metric.kind == "histogram" else (name,)


class Name(NamedTuple):
    """
    What one series is known by.

    Attributes:
        metric: As on the page.

        labels: Names and values of the labels that are told apart.

        grows: Whether it only grows.

        fold: What is kept of a minute.
    """

    metric: str
    labels: tuple[tuple[str, str], ...]
    grows: bool
    fold: Fold

    @property
    def group(self) -> tuple[str, ...]:
        """
        What all series of one `Remembered` and one name on the page have in common.
        """
        return self.metric, *(label for label, _ in self.labels)
