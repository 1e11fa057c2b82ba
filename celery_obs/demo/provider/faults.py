"""
What goes wrong at the fake channel, and for how long.
"""

from __future__ import annotations

import threading

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

from celery_obs.clock import Clock, wall


__all__ = ["KINDS", "Fault", "FaultKind", "Faults", "fault_of"]


FaultKind: TypeAlias = Literal["outage", "status", "slow", "html", "endless", "redirect", "drop", "rate_limit", "expires_in"]
"""
*outage*: 503.  *status*: *value* as the status code.  *slow*: *value* seconds before anything is answered.  *html*: a page instead of JSON, with 200.
*endless*: a body without an end.  *redirect*: to itself, for ever.  *drop*: the connection is closed without an answer.
*rate_limit*: 429 with *value* as ``Retry-After``.  *expires_in*: the token endpoint tells *value*, whatever that is.
"""

KINDS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)

_MOST_FAULTS = 100


class Fault(NamedTuple):
    """
    One thing that goes wrong.

    Attributes:
        kind: What.

        path: Where: it hits requests whose path begins so.

        value: What the kind needs to know.

        seconds: How long it lasts; None for ever.

        times: How many requests it hits; None for all.
    """

    kind: FaultKind
    path: str = "/"
    value: Any = None
    seconds: float | None = None
    times: int | None = None


def fault_of(written: Mapping[str, Any]) -> Fault:
    """
    Read a fault from JSON.

    Raises:
        ValueError: if it is none; the message says why.
    """
    unknown = written.keys() - set(Fault._fields)
    kind = written.get("kind")
    if unknown or kind not in KINDS:
        message = f"A fault has a kind ({', '.join(KINDS)}) and maybe path, value, seconds and times. Got {dict(written)!r:.200}."
        raise ValueError(message)
    return Fault(**written)


@dataclass(slots=True)
class _Active:
    fault: Fault
    until: float
    left: float


class Faults:
    """
    The faults that are on.

    Args:
        clock: Tells the time.

    Threads: safe.
    """

    def __init__(self, *, clock: Clock = wall) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._active: list[_Active] = []

    def switch_on(self, fault: Fault) -> None:
        """
        Let something go wrong from now on; the newest faults win.
        """
        until = float("inf") if fault.seconds is None else self._clock() + fault.seconds
        left = float("inf") if fault.times is None else fault.times
        with self._lock:
            self._active = [_Active(fault, until, left), *self._active][:_MOST_FAULTS]

    def clear(self, path: str = "/") -> None:
        """
        End the faults of everything below *path*.
        """
        with self._lock:
            self._active = [each for each in self._active if not each.fault.path.startswith(path)]

    def hits(self, path: str) -> Fault | None:
        """
        Return the fault that hits a request, and count that; None when all is well.
        """
        with self._lock:
            now = self._clock()
            self._active = [each for each in self._active if each.until > now and each.left > 0]
            for each in self._active:
                if path.startswith(each.fault.path):
                    each.left -= 1
                    return each.fault
        return None

    def active(self) -> tuple[Fault, ...]:
        """
        Return the faults that are on.
        """
        with self._lock:
            now = self._clock()
            return tuple(each.fault for each in self._active if each.until > now and each.left > 0)
