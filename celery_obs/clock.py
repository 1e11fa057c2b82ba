"""
Time as something one asks for, so that tests can answer.
"""

from __future__ import annotations

import time

from collections.abc import Callable
from typing import TypeAlias


__all__ = ["Clock", "wall"]


Clock: TypeAlias = Callable[[], float]
"""
Returns seconds since the epoch.  Wall time, because what we compare crosses processes and hosts.
"""

wall: Clock = time.time
