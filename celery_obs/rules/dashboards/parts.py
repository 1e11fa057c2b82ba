"""
What several dashboards share: colours of thresholds, words for numbers, ways to other pages.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import Final

from celery_obs.areas.sidecar import metrics as ourselves

from .model import Colour, Link, Mapping, Step, Variable


__all__ = [
    "JOB",
    "NO",
    "OUTCOMES",
    "TO_PLATFORM",
    "TO_QUEUES",
    "TO_TASKS",
    "UP",
    "coloured",
    "higher_is_better",
    "higher_is_worse",
]


JOB: Final = Variable("job", "Scrape job", ourselves.BUILD_INFO.name)

TO_PLATFORM: Final = Link("This channel", "channel-manager-platform", "channel_type")
TO_TASKS: Final = Link("This task", "celery-tasks", "task")
TO_QUEUES: Final = Link("This queue", "celery-queues", "queue")

UP: Final = (Mapping(0, "down", "red"), Mapping(1, "up", "green"))
NO: Final = (Mapping(0, "no", "green"), Mapping(1, "yes", "orange"))


OUTCOMES: Final[MappingProxyType[str, Colour]] = MappingProxyType(
    {
        **dict.fromkeys(("success", "created", "active", "live"), "green"),
        **dict.fromkeys(("failure", "failed", "error", "corrupt"), "red"),
        **dict.fromkeys(("partial", "timeout", "invalid_signature", "unsupported"), "orange"),
        **dict.fromkeys(("retry", "paused", "vanished"), "yellow"),
        **dict.fromkeys(("skipped", "ignored", "duplicate", "disconnected", "dead"), "text"),
        **dict.fromkeys(("lost", "refused"), "dark-red"),
        **dict.fromkeys(("updated", "revoked", "stale", "held_back"), "blue"),
        "rejected": "purple",
        "terminated": "light-blue",
    }
)
"""
The colour that an outcome has on every page: what is good is green, what failed is red, and what is neither stays pale.
"""


def coloured(outcomes: Iterable[str]) -> tuple[tuple[str, Colour], ...]:
    """
    Give each of a label's values its colour.
    """
    return tuple((outcome, OUTCOMES[outcome]) for outcome in outcomes)


def higher_is_worse(yellow: float, red: float) -> tuple[Step, ...]:
    """
    Green below *yellow*, red from *red*.
    """
    return (Step(None, "green"), Step(yellow, "yellow"), Step(red, "red"))


def higher_is_better(yellow: float, green: float) -> tuple[Step, ...]:
    """
    Red below *yellow*, green from *green*.
    """
    return (Step(None, "red"), Step(yellow, "yellow"), Step(green, "green"))
