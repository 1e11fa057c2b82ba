"""
What the areas do in this process: their ``runtime`` parts, asked one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from celery_obs.areas import left_out_if_broken, parts
from celery_obs.areas.area_runtime import AreaRuntime, WatchedProcess


__all__ = ["AreaParts"]


T = TypeVar("T")


class AreaParts:
    """
    The parts of all areas; what one raises reaches neither the program nor the next part.

    Args:
        process: What they are parts of.
    """

    def __init__(self, process: WatchedProcess) -> None:
        self._on_error = process.hub.on_error
        self._all: list[tuple[str, AreaRuntime]] = []
        for area, part in parts("runtime"):
            with left_out_if_broken(area, "runtime"):
                self._all.append((area.name, part.Runtime(process)))

    def each(self, ask: Callable[[AreaRuntime], T]) -> list[T]:
        """
        Ask each part, and return what they answered.  Never raises.
        """
        answers = []
        for name, part in self._all:
            try:
                answers.append(ask(part))
            except Exception as exc:  # noqa: BLE001 -- never fail the observed.
                self._on_error(exc, component=f"areas.{name}")
        return answers
