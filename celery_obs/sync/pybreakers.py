"""
Breakers of the library `pybreaker`, as programs import the listener.
"""

from __future__ import annotations

from celery_obs.areas.channels.breakers.pybreakers import listener


__all__ = ["listener"]
