"""
Panels about circuit breakers on dashboards about several areas.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.dashboards.model import WIDTH, Colour, Column, Contribution, Mapping, Panel, Query, Step
from celery_obs.rules.dashboards.parts import TO_PLATFORM
from celery_obs.rules.dashboards.queries import chosen, max_of, per_minute, quantile_of, selector
from celery_obs.rules.promql import Where

from . import metrics


__all__ = ["COLUMNS", "PANELS"]


_HERE: Final = chosen("channel_type")

_COLOURS: Final[tuple[Colour, ...]] = ("green", "red", "yellow")

_STATES: Final = tuple(
    Mapping(number, text.replace("_", "-"), colour) for number, (text, colour) in enumerate(zip(metrics.STATES, _COLOURS, strict=True))
)


def _state(**where: Where) -> str:
    """
    Tell each channel's breaker state.

    While the lease goes from one exporter to the other, two may differ for a moment: open wins, for the numbers are not in order of badness.
    """
    is_open = f"max by (channel_type) ({selector(metrics.STATE, part='', **where)} == {metrics.STATES.index('open')})"
    return f"{is_open} or {max_of(metrics.STATE, 'channel_type', **where)}"


def _timeline(*, height: int = 7, **where: Where) -> Panel:
    """
    Show the breakers' states over time.
    """
    return Panel(
        kind="state-timeline",
        title="Circuit breakers",
        question="Which circuit breaker is open, since when, and does it flap? Open: no call goes through. Half-open: one at a time does.",
        queries=(Query(expr=_state(**where), legend="{{channel_type}}"),),
        mappings=_STATES,
        unit="none",
        width=WIDTH,
        height=height,
        links=(TO_PLATFORM,),
    )


PANELS: Final = (
    Contribution(
        "channel-manager-overview",
        "Summary",
        3,
        Panel(
            kind="stat",
            title="Circuit breakers open",
            question="How many channels have an open circuit breaker? Counted by channel, however many exporters show it.",
            queries=(
                Query(
                    expr=f"sum (max by (channel_type) ({selector(metrics.STATE)} == bool {metrics.STATES.index('open')}))",
                    legend="Open",
                ),
            ),
            unit="none",
            steps=(Step(None, "green"), Step(1, "red")),
            width=4,
            height=4,
        ),
    ),
    Contribution("channel-manager-overview", "Channels", 1, _timeline()),
    Contribution(
        "channel-manager-platform",
        "Connection status",
        1,
        Panel(
            kind="stat",
            title="Circuit breaker",
            question="Is the channel called at all?",
            queries=(Query(expr=_state(channel_type=_HERE), legend="{{channel_type}}"),),
            mappings=_STATES,
            unit="none",
            width=3,
        ),
    ),
    Contribution("channel-manager-platform", "Connection status", 4, _timeline(height=4, channel_type=_HERE)),
    Contribution(
        "channel-manager-platform",
        "Webhooks and outages",
        3,
        Panel(
            kind="timeseries",
            title="Calls that the breaker rejected",
            question="How many calls does the circuit breaker reject?",
            queries=(
                Query(expr=per_minute(metrics.REJECTIONS, "channel_type", channel_type=_HERE), legend="{{channel_type}}"),
                Query(
                    expr=per_minute(metrics.TRANSITIONS, "from_state", "to_state", channel_type=_HERE),
                    legend="{{from_state}} to {{to_state}}",
                ),
            ),
            unit="opm",
        ),
    ),
    Contribution(
        "channel-manager-platform",
        "Webhooks and outages",
        4,
        Panel(
            kind="timeseries",
            title="How long outages last (p95)",
            question="How long is the circuit breaker open?",
            queries=(
                Query(
                    expr=quantile_of(0.95, metrics.OPEN_DURATION, "channel_type", over="$__range", channel_type=_HERE),
                    legend="{{channel_type}}",
                ),
            ),
            unit="s",
            nothing="no outage ended in the time shown",
        ),
    ),
)

COLUMNS: Final = (
    Column("channel-manager-overview", "Channel health", 0, Query(expr=_state(), legend="Status", unit="none", mappings=_STATES)),
)
