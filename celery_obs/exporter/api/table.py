"""
The API as a table: what can be asked and done, from which both the routes and their description are made; the areas give all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from celery_obs.areas import left_out_if_broken, parts

from .model import Deed, Question


__all__ = ["DEEDS", "QUESTIONS", "known_channels"]


def _gathered(name: str) -> Iterator[Any]:
    for area, part in parts("http"):
        with left_out_if_broken(area, "http"):
            yield from tuple(getattr(part, name, ()))


QUESTIONS: Final[tuple[Question, ...]] = tuple(_gathered("QUESTIONS"))
DEEDS: Final[tuple[Deed, ...]] = tuple(_gathered("DEEDS"))


def known_channels(redis: Any) -> tuple[str, ...]:
    """
    Return the channels that something can be done to; raises what a Redis client raises.
    """
    return tuple(channel for area, part in parts("http") if hasattr(part, "channels") for channel in part.channels(redis))
