"""
What channels say of their limits in the headers of their answers, in the spellings that are in use.

``X-RateLimit-Remaining`` and ``X-RateLimit-Reset`` (also ``X-Rate-Limit-…``), and the drafts of the IETF: ``RateLimit-Remaining`` and ``RateLimit-Reset``,
``RateLimit: limit=100, remaining=50, reset=30`` and ``RateLimit: "default";r=50;t=30``.
"""

from __future__ import annotations

import math
import re

from datetime import datetime, timezone
from typing import Any, Final

from celery_obs.clock import Clock, wall

from .errors import header


__all__ = ["told_limits"]


_PREFIXES: Final = ("X-RateLimit-", "RateLimit-", "X-Rate-Limit-")
_ITEM: Final = re.compile(r"(?:^|[;,\s])(r|t|remaining|reset)\s*=\s*(\d{1,15})(?![\w.])", re.ASCII)
_LONGEST: Final = 256
_AN_EPOCH: Final = 1e9
_IN_MILLISECONDS: Final = 1e11


def told_limits(headers: Any, *, clock: Clock = wall) -> tuple[int | None, float | None]:
    """
    Return how many calls are left, and in how many seconds there are new ones; None for what was not said, or makes no sense.

    A reset is a number of seconds, a time in seconds or milliseconds since the epoch, or an ISO date.
    Of several limits that one header lists, the one with the fewest calls left counts.
    """
    if headers is None:
        return None, None
    for prefix in _PREFIXES:
        remaining = _count(_text(header(headers, prefix + "Remaining")))
        reset = _seconds(_text(header(headers, prefix + "Reset")), clock)
        if remaining is not None or reset is not None:
            return remaining, reset
    return _listed(_text(header(headers, "RateLimit")))


def _listed(text: str) -> tuple[int | None, float | None]:
    found: list[tuple[int, float | None]] = []
    # Commas part the limits of the newer draft, and the facts of one limit in the older.
    for part in text.split(",") if ";" in text else [text]:
        said = {name[0] if len(name) == 1 else name: int(number) for name, number in _ITEM.findall(part)}
        left = said.get("r", said.get("remaining"))
        ends = said.get("t", said.get("reset"))
        if left is not None:
            found.append((left, None if ends is None else float(ends)))
    return min(found, key=lambda each: each[0], default=(None, None))


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return value.strip() if isinstance(value, str) and len(value) <= _LONGEST else ""


def _count(text: str) -> int | None:
    number = _number(text)
    return None if number is None else math.floor(number)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None


def _seconds(text: str, clock: Clock) -> float | None:
    number = _number(text)
    if number is None:
        return _until(text, clock)
    if number < _AN_EPOCH:
        return number
    return max(0.0, (number / 1000 if number >= _IN_MILLISECONDS else number) - clock())


def _until(text: str, clock: Clock) -> float | None:
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return max(0.0, (at if at.tzinfo is not None else at.replace(tzinfo=timezone.utc)).timestamp() - clock())
