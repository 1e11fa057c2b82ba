"""
What several dashboards share: colours of thresholds, words for numbers, ways to other pages.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import Final

from celery_obs.areas.channels.breakers import metrics as circuit_breaker
from celery_obs.areas.channels.syncs import metrics as syncs
from celery_obs.areas.queues import metrics as queues
from celery_obs.areas.sidecar import metrics as ourselves
from celery_obs.rules.promql import Where, one_of

from .model import WIDTH, Colour, Link, Mapping, Panel, Query, Step, Variable
from .queries import max_of, selector


__all__ = [
    "BREAKER_STATES",
    "CHANNEL",
    "ENDED",
    "JOB",
    "NO",
    "OUTCOMES",
    "TO_PLATFORM",
    "TO_QUEUES",
    "TO_TASKS",
    "UP",
    "breaker_state",
    "breaker_timeline",
    "coloured",
    "higher_is_better",
    "higher_is_worse",
    "oldest_message",
]


JOB: Final = Variable("job", "Scrape job", ourselves.BUILD_INFO.name)
CHANNEL: Final = Variable("channel_type", "Channel", syncs.TOTAL.name, many=False)

TO_PLATFORM: Final = Link("This channel", "channel-manager-platform", "channel_type")
TO_TASKS: Final = Link("This task", "celery-tasks", "task")
TO_QUEUES: Final = Link("This queue", "celery-queues", "queue")

ENDED: Final = one_of("success", "partial", "failure")
"""
The outcomes of a run that count: a retry has not ended, and where there was nothing to do nothing could fail.
"""

_COLOURS: Final[tuple[Colour, ...]] = ("green", "red", "yellow")

BREAKER_STATES: Final = tuple(
    Mapping(number, text.replace("_", "-"), colour)
    for number, (text, colour) in enumerate(zip(circuit_breaker.STATES, _COLOURS, strict=True))
)
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


def oldest_message(*by: str, **where: Where) -> str:
    """
    Tell how long the front of the queues has waited: 0 where nothing waits, absent where something does and the broker cannot tell since when.
    """
    return f"{max_of(queues.OLDEST_MESSAGE_AGE, *by, **where)} or {max_of(queues.DEPTH, *by, **where)} == 0"


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


def breaker_state(**where: Where) -> str:
    """
    Tell each channel's breaker state.

    While the lease goes from one exporter to the other, two may differ for a moment: open wins, for the numbers are not in order of badness.
    """
    is_open = f"max by (channel_type) ({selector(circuit_breaker.STATE, part='', **where)} == {circuit_breaker.STATES.index('open')})"
    return f"{is_open} or {max_of(circuit_breaker.STATE, 'channel_type', **where)}"


def breaker_timeline(*, height: int = 7, **where: Where) -> Panel:
    """
    Show the breakers' states over time.
    """
    return Panel(
        kind="state-timeline",
        title="Circuit breakers",
        question="Which circuit breaker is open, since when, and does it flap? Open: no call goes through. Half-open: one at a time does.",
        queries=(Query(expr=breaker_state(**where), legend="{{channel_type}}"),),
        mappings=BREAKER_STATES,
        unit="none",
        width=WIDTH,
        height=height,
        links=(TO_PLATFORM,),
    )
