"""
Points in time as people and channels write them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final


__all__ = ["time_of", "wrong_type"]


_MILLISECONDS_FROM: Final = 1e11
"""
A time since the epoch that is larger than this, the year 5138 in seconds, is in milliseconds.
"""

_A_TIME: Final = "seconds since the epoch, a datetime with a time zone, or ISO 8601 with a time zone such as 2030-01-31T12:00:00Z"


def time_of(value: Any, name: str, *, of: str = "Token") -> float | None:
    """
    Read a point in time as people and channels write it: a number or its text, in seconds or milliseconds, an aware datetime, or ISO 8601.

    Raises:
        TypeError, ValueError: for what is none; the message names it the *name* of what it is *of*, and does not show it.
    """
    if value is None:
        return None
    if isinstance(value, str):
        value = _number_or_datetime(value, name, of)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            message = f"The {name} of a {of} is a datetime without a time zone. Expected {_A_TIME}."
            raise ValueError(message)
        return value.timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong_type(value, name, _A_TIME, of=of)
    seconds = value / 1000 if value >= _MILLISECONDS_FROM else value
    if not 0 <= seconds < _MILLISECONDS_FROM:  # Also not a number at all.
        message = f"The {name} of a {of} is out of range. Expected {_A_TIME}."
        raise ValueError(message)
    return float(seconds)


def _number_or_datetime(written: str, name: str, of: str) -> float | datetime:
    stripped = written.strip()
    try:
        return float(stripped)
    except ValueError:
        pass
    try:
        # Python 3.10 knows no Z.
        return datetime.fromisoformat(stripped[:-1] + "+00:00" if stripped[-1:] in {"Z", "z"} else stripped)
    except ValueError:
        message = f"The {name} of a {of} is not a time. Expected {_A_TIME}."
        raise ValueError(message) from None


def wrong_type(value: object, name: str, expected: str, *, of: str = "Token") -> TypeError:
    """
    Make the error for a *value* of a type that is none of the *expected*; the message does not show it.
    """
    return TypeError(f"The {name} of a {of} is of type {type(value).__name__}. Expected {expected}.")
