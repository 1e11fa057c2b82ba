"""
What all areas have remembered.
"""

from __future__ import annotations

from collections.abc import Iterator

from celery_obs.areas import left_out_if_broken, parts

from .declared import Remembered


__all__ = ["declared"]


def declared() -> Iterator[Remembered]:
    """
    Go through what all areas have remembered, ours first.
    """
    for area, part in parts("history"):
        with left_out_if_broken(area, "history"):
            yield from tuple(part.REMEMBERED)
