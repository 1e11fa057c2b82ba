"""
Samples of a page, read back where a question is asked of what was collected: a few families of many.
"""

from __future__ import annotations

import re

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from celery_obs.vocabulary.spec import Metric


__all__ = ["Samples", "labels_of"]


_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r"\\(.)")
_ESCAPES: Final = {"n": "\n"}


class Samples:
    """
    The samples of one or more pages in the text format or OpenMetrics.

    Nothing is parsed but the families that are asked for: a page may have a hundred thousand lines.

    Args:
        pages: Their texts; of a series that two have, the first counts.
    """

    def __init__(self, pages: Iterable[str]) -> None:
        self._pages = tuple(pages)

    def of(self, metric: Metric) -> Mapping[tuple[str, ...], float]:
        """
        Return the samples of a counter or a gauge, by the values of its labels in their order.
        """
        return self.named(metric.name, metric.labels)

    def count_of(self, metric: Metric) -> Mapping[tuple[str, ...], float]:
        """
        Return how many observations a histogram had.
        """
        return self.named(f"{metric.name}_count", metric.labels)

    def named(self, name: str, labels: tuple[str, ...]) -> Mapping[tuple[str, ...], float]:
        """
        Return the samples called *name*, by the values of *labels*.
        """
        found: dict[tuple[str, ...], float] = {}
        for page in self._pages:
            for line in _lines(page, name):
                head, _, tail = line.rpartition("}") if "}" in line else (line[: len(name)], "", line[len(name) :])
                values = labels_of(head)
                try:
                    found.setdefault(tuple(values.get(label, "") for label in labels), float(tail.split()[0]))
                except (ValueError, IndexError):
                    continue  # A line of another's that is none.
        return found


def labels_of(series: str) -> dict[str, str]:
    """
    Return the labels of a series as it is written on a page.
    """
    return {label: _ESCAPED.sub(lambda char: _ESCAPES.get(char[1], char[1]), value) for label, value in _LABEL.findall(series)}


def _lines(page: str, name: str) -> Iterator[str]:
    """
    Go through the lines of the samples called *name*, which stand together.
    """
    start = min((at for at in (_start(page, f"{name}{{"), _start(page, f"{name} ")) if at >= 0), default=-1)
    while start >= 0 and page.startswith((f"{name}{{", f"{name} "), start):
        end = page.find("\n", start)
        yield page[start : end if end >= 0 else len(page)]
        start = end + 1 if end >= 0 else -1


def _start(page: str, head: str) -> int:
    if page.startswith(head):
        return 0
    at = page.find(f"\n{head}")
    return at + 1 if at >= 0 else -1
