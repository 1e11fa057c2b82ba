"""
The circuit breaker: whether a channel is called at all.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from celery_obs.vocabulary.spec import Metric


__all__ = ["OPEN_DURATION", "REJECTIONS", "STATE", "STATES", "TRANSITIONS", "BreakerState"]


BreakerState: TypeAlias = Literal["closed", "open", "half_open"]
"""
*closed*: calls go through.  *open*: none does.  *half_open*: one at a time does, to see whether the channel is back.
"""

STATES: Final[tuple[BreakerState, ...]] = ("closed", "open", "half_open")
"""
The states; a state's place here is the number that stands for it in :data:`STATE`.
"""


STATE = Metric(
    kind="gauge",
    name="channel_circuit_breaker_state",
    help="Which circuit breaker is open? 0 closed, 1 open, 2 half-open.",
    labels=("channel_type",),
)
TRANSITIONS = Metric(
    kind="counter",
    name="channel_circuit_breaker_transitions_total",
    help="Does the circuit breaker flap? State changes, each counted once in the whole cluster.",
    labels=("channel_type", "from_state", "to_state"),
)
REJECTIONS = Metric(
    kind="counter",
    name="channel_circuit_breaker_rejections_total",
    help="How many calls does the circuit breaker reject? Calls that it did not let through.",
    labels=("channel_type",),
)
OPEN_DURATION = Metric(
    kind="histogram",
    name="channel_circuit_breaker_open_duration_seconds",
    help="How long do outages last? Time from the circuit breaker's opening to its closing.",
    labels=("channel_type",),
    buckets=(1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 21600.0),
    resolution=1e-6,
)
