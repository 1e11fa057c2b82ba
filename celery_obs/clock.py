"""
Time as something one asks for, so that tests can answer; and the jitter of pauses.
"""

from __future__ import annotations

import random
import time

from collections.abc import Callable
from typing import TypeAlias


__all__ = ["Clock", "between", "wall"]


Clock: TypeAlias = Callable[[], float]
"""
Returns seconds since the epoch.  Wall time, because what we compare crosses processes and hosts.
"""

wall: Clock = time.time

_system = random.SystemRandom()


def between(low: float, high: float) -> float:
    """
    Return some number of the range, to spread what would happen at once.

    It comes from the operating system, a microsecond each: the random numbers of the program, which it may have seeded, stay as they are, and forked
    processes do not all get the same.
    """
    return _system.uniform(low, high)
