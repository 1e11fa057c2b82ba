"""
What the headers of an answer say about when to ask again: ``Retry-After``, and what is left of a rate limit.

Channels write the same thing in many ways.  All of them are read here, and what makes no sense is left out.
"""

from __future__ import annotations

import math
import re

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, Final, NamedTuple

from celery_obs.clock import Clock, wall


__all__ = ["RateLimitAnswer", "about_limits", "header", "lowered", "moment_of", "rate_limit_answer", "seconds_of"]


_LONGEST_HEADER: Final = 256
_MOST_HEADERS: Final = 256
_LONGEST_AFTER: Final = 86400.0

_MOMENTS: Final = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3), (1e8, 1.0))
"""
From which size on a number is a time since the epoch, and its unit in seconds: nanoseconds, microseconds, milliseconds, seconds.
What is smaller is a number of seconds from now on.
"""
_LATEST: Final = 1e20


class RateLimitAnswer(NamedTuple):
    """
    What an answer said about its rate limit; None for what it did not say.

    Attributes:
        limit: Calls in a window.

        remaining: Calls left in this one.

        reset_after: Seconds until it begins anew, a day at most.

        retry_after: Seconds after which to ask again, a day at most.

    Since 0.1.
    """

    limit: int | None = None
    remaining: int | None = None
    reset_after: float | None = None
    retry_after: float | None = None


_NOTHING: Final = RateLimitAnswer()


# --- headers as clients hold them -------------------------------------------------------------------------------------------------


def lowered(headers: Any) -> Mapping[str, str]:
    """
    Return the headers by their names in lower case, from whatever a client calls headers; of several with one name the first.

    Never raises: of what is no headers, nothing is returned.
    """
    return _lowered(headers, ("",))


def about_limits(headers: Any) -> Mapping[str, str]:
    """
    Return those of the headers that may say something about a rate limit, as `lowered` does.
    """
    return _lowered(headers, _CLUES)


_CLUES: Final = ("limit", "retry")
"""
What stands in the name of each header that we read here.
"""


def _lowered(headers: Any, clues: tuple[str, ...]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    try:
        pairs: Iterable[Any] = headers.items() if hasattr(headers, "items") else headers or ()
        for name, value in islice(pairs, _MOST_HEADERS):
            key = (name if type(name) is str else _text(name)).lower()
            for clue in clues:
                if clue in key:
                    found.setdefault(key, value if type(value) is str else _text(value))
                    break
    except Exception:  # noqa: BLE001 -- whatever a program passed for headers, its call goes on.
        return found
    return found


def header(headers: Any, name: str) -> str | None:
    """
    Look *name* up in whatever a client calls headers, which may not be there.

    Since 0.1.
    """
    return lowered(headers).get(name.lower())


def _text(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return value.decode("latin-1")
    if isinstance(value, (list, tuple)):
        return _text(value[0])
    return str(value)


# --- times ------------------------------------------------------------------------------------------------------------------------


def moment_of(value: object) -> float | None:
    """
    Read a moment: seconds, milliseconds, microseconds or nanoseconds since the epoch, an ISO 8601 text, or an HTTP date in any of its three forms.

    Returns:
        Seconds since the epoch; None for what is no moment, also for a number that is too small to be one.
    """
    if isinstance(value, datetime):
        return _stamp(value)
    number = _number(value)
    if number is not None:
        return next((number * unit for least, unit in _MOMENTS if least <= number < _LATEST), None)
    return _date(value.strip()) if isinstance(value, str) and len(value) <= _LONGEST_HEADER else None


def seconds_of(value: object, *, clock: Clock = wall) -> float | None:
    """
    Read the value of a header such as ``Retry-After`` or ``X-RateLimit-Reset``: seconds from now on, or a moment in any form (see `moment_of`).

    What makes no sense, or is negative, is None; a moment that is over is 0, and more than a day is a day.

    Since 0.1.
    """
    if isinstance(value, (bytes, bytearray)):
        value = value.decode("latin-1")
    if not isinstance(value, str) or len(value) > _LONGEST_HEADER:
        return None
    moment = moment_of(value)
    seconds = moment - clock() if moment is not None else _number(value)
    if seconds is None:
        seconds = _duration(value)
    if seconds is None or math.isnan(seconds) or (moment is None and seconds < 0):
        return None
    return min(max(0.0, seconds), _LONGEST_AFTER)


_NUMBER: Final = re.compile(r"\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?\s*", re.ASCII)


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)) or (isinstance(value, str) and len(value) <= _LONGEST_HEADER and _NUMBER.fullmatch(value)):
        try:
            return float(value)
        except (OverflowError, ValueError):
            return None
    return None


def _date(text: str) -> float | None:
    if text[:4].isdigit():
        try:
            return _stamp(datetime.fromisoformat(_FRACTION.sub(_microseconds, _ISO_END.sub("+00:00", text), count=1)))
        except (ValueError, OverflowError):
            return None
    try:
        return _stamp(parsedate_to_datetime(text))
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


_ISO_END: Final = re.compile("[zZ]$")
_FRACTION: Final = re.compile(r"[.,]([0-9]{1,9})", re.ASCII)


def _microseconds(match: re.Match[str]) -> str:
    # Python 3.10 reads three or six digits only.
    return f".{match[1]:0<6.6}"


def _stamp(moment: datetime) -> float | None:
    # HTTP's dates are in UTC, whether they say so (GMT), say nothing (asctime), or say that they do not know (-0000).
    try:
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        return None


_DURATION: Final = re.compile(
    r"(?:([0-9]{1,6})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)s)?(?:([0-9]{1,9})ms)?", re.ASCII
)
_UNITS: Final = (86400.0, 3600.0, 60.0, 1.0, 0.001)


def _duration(text: str) -> float | None:
    # As in 6m0s, which some write.
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        return None
    return sum(float(part) * unit for part, unit in zip(match.groups(), _UNITS, strict=True) if part)


# --- rate limits ------------------------------------------------------------------------------------------------------------------

_RETRY: Final = (("retry-after", 1.0), ("retry-after-ms", 1e-3), ("x-ms-retry-after-ms", 1e-3), ("x-retry-after", 1.0))

_FAMILIES: Final = (
    # The first draft of the IETF, and what was there before it.
    ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"),
    ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
    ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset-after"),
    ("x-rate-limit-limit", "x-rate-limit-remaining", "x-rate-limit-reset"),
    ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("fitbit-rate-limit-limit", "fitbit-rate-limit-remaining", "fitbit-rate-limit-reset"),
    ("x-hubspot-ratelimit-max", "x-hubspot-ratelimit-remaining", ""),
)
"""
Names of the headers that tell a limit, what remains of it, and when it begins anew.
"""

_USED: Final = (("x-ratelimit-limit", "x-ratelimit-usage"), ("x-readratelimit-limit", "x-readratelimit-usage"))
"""
Names of headers that tell several limits and what was used of each, with commas between them.
"""

_SHARE: Final = "x-shopify-shop-api-call-limit"


def rate_limit_answer(headers: Any, *, clock: Clock = wall) -> RateLimitAnswer:
    """
    Read what an answer says about its rate limit.

    Known are ``Retry-After`` and its variants, ``RateLimit`` and ``RateLimit-*`` of all IETF drafts, ``X-RateLimit-*`` in its spellings,
    and those of Fitbit, HubSpot, Shopify and Strava.  Of several limits, the one with the least left counts.

    Never raises.

    Since 0.1.
    """
    known = about_limits(headers)
    if not known:
        return _NOTHING
    answers = [*_structured(known.get("ratelimit"), clock), *_families(known, clock), *_used(known)]
    counted = [each for each in answers if each.remaining is not None]
    least = (
        min(counted, key=lambda each: (each.remaining, -(each.reset_after or 0.0))) if counted else next(iter(answers), RateLimitAnswer())
    )
    return least._replace(retry_after=_retry_after(known, clock))


def _retry_after(known: Mapping[str, str], clock: Clock) -> float | None:
    for name, unit in _RETRY:
        if name in known:
            value = known[name]
            seconds = seconds_of(value, clock=clock) if unit == 1.0 else _count(value, unit)
            if seconds is not None:
                return seconds
    return None


def _count(value: str, unit: float) -> float | None:
    number = _number(value)
    return None if number is None or number < 0 else min(number * unit, _LONGEST_AFTER)


def _families(known: Mapping[str, str], clock: Clock) -> Iterable[RateLimitAnswer]:
    for limit, remaining, reset in _FAMILIES:
        if remaining in known or reset in known:
            answer = RateLimitAnswer(_whole(known.get(limit)), _whole(known.get(remaining)), seconds_of(known.get(reset), clock=clock))
            if answer != (None, None, None, None):
                yield answer


def _used(known: Mapping[str, str]) -> Iterable[RateLimitAnswer]:
    for limits, used in _USED:
        if used in known:
            for most, gone in zip(known.get(limits, "").split(","), known[used].split(","), strict=False):
                yield _left(most, gone)
    gone, found, most = known.get(_SHARE, "").partition("/")
    if found:
        yield _left(most, gone)


def _left(most: str, gone: str) -> RateLimitAnswer:
    limit, used = _whole(most), _whole(gone)
    return RateLimitAnswer(limit, None if limit is None or used is None else max(0, limit - used))


_MOST_CALLS: Final = 10**9
_LEADING: Final = re.compile(r"\s*(-?[0-9]{1,20})(?:\.[0-9]*)?\s*(?:$|[,;])", re.ASCII)


def _whole(text: str | None) -> int | None:
    # "100, 100;w=60" in the older drafts: the first counts.
    match = _LEADING.match(text or "")
    return None if match is None else min(max(0, int(match[1])), _MOST_CALLS)


_ITEM: Final = re.compile(r'(?:^|[;,\s])(limit|remaining|reset|r|t|q)\s*=\s*"?([0-9]{1,20})', re.ASCII | re.IGNORECASE)


def _structured(text: str | None, clock: Clock) -> Iterable[RateLimitAnswer]:
    # "default";r=50;t=30, of which there may be several; or limit=100, remaining=50, reset=5.
    if text is None or len(text) > _LONGEST_HEADER:
        return
    for item in text.split(",") if re.search(r";\s*[rt]\s*=", text) else [text]:
        parts = {name.lower(): value for name, value in _ITEM.findall(item)}
        reset = parts.get("t", parts.get("reset"))
        answer = RateLimitAnswer(
            _whole(parts.get("limit", parts.get("q"))),
            _whole(parts.get("remaining", parts.get("r"))),
            None if reset is None else seconds_of(reset, clock=clock),
        )
        if answer != (None, None, None, None):
            yield answer
