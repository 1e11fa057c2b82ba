"""
Circuit breakers, as programs import them.
"""

from __future__ import annotations

from celery_obs.areas.channels.breakers.api import (
    Breaker,
    Guard,
    GuardAsync,
    Permit,
    Registry,
    allow,
    allow_async,
    gave_up_late,
    guard,
    guard_async,
    guarded,
    is_given_up,
    outcome_of,
    record,
    record_async,
    registry,
)


__all__ = [
    "Breaker",
    "Guard",
    "GuardAsync",
    "Permit",
    "Registry",
    "allow",
    "allow_async",
    "gave_up_late",
    "guard",
    "guard_async",
    "guarded",
    "is_given_up",
    "outcome_of",
    "record",
    "record_async",
    "registry",
]
