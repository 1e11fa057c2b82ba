"""
The policy of a channel: when its breaker opens, and how often it may be called at which time of day.
"""

from __future__ import annotations

import math
import re

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias, get_args


__all__ = [
    "ANY_CHANNEL",
    "DAYS",
    "PRESETS",
    "Algorithm",
    "BreakerPolicy",
    "BreakerScope",
    "ChannelPolicy",
    "PolicyError",
    "RateLimit",
    "ToldScope",
    "limit_at",
    "limits_at",
    "policies",
    "policy_of",
]


ANY_CHANNEL: Final = "*"
"""
The name under which a policy stands for every channel that has none of its own.
"""

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

Scope: TypeAlias = Literal["connection", "channel"]
"""
Whose calls a limit counts: each connection's by itself, or the whole channel's together.
"""

BreakerScope: TypeAlias = Literal["channel", "endpoint", "connection"]
"""
What has a breaker of its own.
"""

Algorithm: TypeAlias = Literal["sliding_window", "leaky_bucket"]
"""
How a limit counts: at most so many calls in any stretch of time; or a bucket of so many calls that leaks at a steady rate (GCRA).
"""

ToldScope: TypeAlias = Literal["auto", "connection", "channel", "off"]
"""
Whose limit it is that a channel tells in the headers of its answers.
"""


class PolicyError(ValueError):
    """
    A policy is not what it should be; the message names the place, what stands there, and what was expected.
    """

    tells_reason: Final = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """
    When a breaker opens and closes.

    Attributes:
        failure_threshold: So many failures in a row open it; a success in between starts the count anew.  0 where failures in a row do not.

        success_threshold: So many successful probes in a row close it again; any failed one opens it.

        timeout: Seconds that it stays open before the first probe.

        probe_timeout: Seconds after which a probe without an outcome makes room for the next one.

        probes: Probes that may be under way at once.

        failure_rate: Part of the calls in the window, above 0 and up to 1, that opens it when so many failed; 0 where no rate does.

        slow_rate: The same for slow calls, whatever they were answered.

        slow_after: Seconds from which on a call is slow.

        window: Seconds that the rates look back.

        minimum_calls: Calls in the window below which no rate opens it.

        per: What has a breaker of its own: the channel, each of its endpoints, or each connection.

        caller_timeout:
            Seconds.  A call that its caller gave up (cancelled, or ended by the soft time limit) after at least as many is a failure of the channel;
            0 where such a call never is.
    """

    failure_threshold: int = 5
    success_threshold: int = 2
    timeout: float = 30.0
    probe_timeout: float = 60.0
    probes: int = 1
    failure_rate: float = 0.0
    slow_rate: float = 0.0
    slow_after: float = 5.0
    window: float = 60.0
    minimum_calls: int = 20
    per: BreakerScope = "channel"
    caller_timeout: float = 10.0

    @property
    def has_window(self) -> bool:
        """
        Whether a rate can open it, so that every call is counted.
        """
        return self.failure_rate > 0 or self.slow_rate > 0


PRESETS: Final[Mapping[str, BreakerPolicy]] = {
    "default": BreakerPolicy(),
    "fhir": BreakerPolicy(failure_threshold=5, success_threshold=3, timeout=60.0),
    "fitbit": BreakerPolicy(failure_threshold=3, success_threshold=2, timeout=30.0),
    "withings": BreakerPolicy(failure_threshold=3, success_threshold=2, timeout=30.0),
}
"""
Breakers by name.  A channel called like one of them has it unless it is configured otherwise.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """
    How many calls any stretch of time may hold, and when that holds.

    Attributes:
        requests: Calls.

        seconds: Length of the window that slides; of a leaky bucket the time in which so many calls leak out.

        hours:
            Minutes of the day from which and up to which it applies; the whole day where they are equal.
            Where the end comes first, the stretch goes past midnight and belongs to the day on which it began.

        days: Days of the week on which it applies, Monday is 0.

        timezone: Whose hours and days these are.

        per: Whose calls are counted together.

        algorithm: How it counts.

        burst: Calls that a leaky bucket holds, so that as many may be made at once.
    """

    requests: int
    seconds: float
    hours: tuple[int, int] = (0, 1440)
    days: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    timezone: str = "UTC"
    per: Scope = "connection"
    algorithm: Algorithm = "sliding_window"
    burst: int = 1

    @property
    def most(self) -> int:
        """
        Calls that may be made at once: a single call cannot cost more.
        """
        return self.requests if self.algorithm == "sliding_window" else self.burst

    def applies(self, at: float) -> bool:
        """
        Tell whether this limit holds at *at*, in seconds since the epoch.
        """
        if self.hours == (0, 1440) and len(self.days) == len(DAYS):
            return True
        local = datetime.fromtimestamp(at, _zone(self.timezone))
        minute = local.hour * 60 + local.minute
        begin, end = self.hours
        if begin < end:
            return local.weekday() in self.days and begin <= minute < end
        yesterday = (local.date() - timedelta(days=1)).weekday()
        return (local.weekday() in self.days and minute >= begin) or (yesterday in self.days and minute < end)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPolicy:
    """
    How one channel is to be treated.

    Attributes:
        breaker: None where the channel has no breaker.

        rate_limits: All that hold have to allow a call, see `limits_at`; where none does, nothing is limited.

        told_limits:
            Whose limits the channel tells in its headers.  *auto*: each connection's where *rate_limits* count by connection, else the whole channel's.
    """

    breaker: BreakerPolicy | None = PRESETS["default"]
    rate_limits: tuple[RateLimit, ...] = ()
    told_limits: ToldScope = "auto"


_PRESET_POLICIES: Final = {name: ChannelPolicy(breaker=breaker) for name, breaker in PRESETS.items()}


def policy_of(channels: Mapping[str, ChannelPolicy], channel: str) -> ChannelPolicy:
    """
    Return a channel's policy: its own, else that of :data:`ANY_CHANNEL`, else the preset of its name, else the default.
    """
    found = channels.get(channel) or channels.get(ANY_CHANNEL) or _PRESET_POLICIES.get(channel)
    return found or _PRESET_POLICIES["default"]


def limit_at(limits: tuple[RateLimit, ...], at: float) -> RateLimit | None:
    """
    Return the first limit that holds at *at*, in seconds since the epoch, which is the one that is shown; None where there is none.
    """
    return next((limit for limit in limits if limit.applies(at)), None)


def limits_at(limits: tuple[RateLimit, ...], at: float) -> tuple[RateLimit, ...]:
    """
    Return all limits that hold at *at*, in seconds since the epoch.

    Of those that count the same, which is the same calls in the same way in a window of the same length, the first that applies is the one that holds.
    So one writes the hours that differ first, and what holds at all others after them.
    """
    if len(limits) == 1:
        return limits if limits[0].applies(at) else ()
    found: dict[tuple[Scope, float, Algorithm], RateLimit] = {}
    for limit in limits:
        if (limit.per, limit.seconds, limit.algorithm) not in found and limit.applies(at):
            found[limit.per, limit.seconds, limit.algorithm] = limit
    return tuple(found.values())


# --- reading ----------------------------------------------------------------------------------------------------------------------


def policies(value: Any) -> dict[str, ChannelPolicy]:
    """
    Read the policies of all channels, as people write them.

    Raises:
        PolicyError: naming the place of what is wrong.
    """
    where = "channels"
    given = _mapping(value, where, "a dict of channels")
    return {_channel(name): _policy(given[name], f"{where}[{name!r}]") for name in given}


def _channel(name: Any) -> str:
    if isinstance(name, str) and name.strip() and name.isprintable():
        return name
    message = f"channels has the key {_shown(name)}; expected a channel's name, or * for all others"
    raise PolicyError(message)


def _policy(value: Any, where: str) -> ChannelPolicy:
    if isinstance(value, ChannelPolicy):
        return value
    given = _mapping(value, where, "a dict with circuit_breaker and rate_limits")
    _only(given, {"circuit_breaker", "rate_limits", "told_limits"}, where)
    breaker = PRESETS["default"] if "circuit_breaker" not in given else _breaker(given["circuit_breaker"], f"{where}['circuit_breaker']")
    return ChannelPolicy(
        breaker=breaker,
        rate_limits=_rate_limits(given.get("rate_limits", ()), f"{where}['rate_limits']"),
        told_limits=_word(given.get("told_limits", "auto"), f"{where}['told_limits']", get_args(ToldScope)),
    )


def _breaker(value: Any, where: str) -> BreakerPolicy | None:
    if _is_off(value):
        return None
    if isinstance(value, BreakerPolicy):
        return value
    expected = f"a preset ({', '.join(PRESETS)}), off, or a dict of {', '.join(_BREAKER_FIELDS)}"
    if isinstance(value, str):
        if value not in PRESETS:
            raise _wrong(where, value, expected)
        return PRESETS[value]
    given = dict(_mapping(value, where, expected))
    _only(given, {*_BREAKER_FIELDS, "preset"}, where)
    base = _breaker(given.pop("preset", "default"), f"{where}['preset']") or PRESETS["default"]
    checked = {name: _BREAKER_FIELDS[name](value, f"{where}[{name!r}]") for name, value in given.items()}
    made = BreakerPolicy(**{**{name: getattr(base, name) for name in _BREAKER_FIELDS}, **checked})
    if not made.failure_threshold and not made.has_window:
        message = f"{where} never opens: failure_threshold is off; expected a failure_rate or a slow_rate besides, or the breaker to be off"
        raise PolicyError(message)
    return made


def _rate_limits(value: Any, where: str) -> tuple[RateLimit, ...]:
    if value is None:
        return ()
    if isinstance(value, (str, Mapping, RateLimit)):
        return (_rate_limit(value, where),)
    if isinstance(value, (list, tuple)):
        return tuple(_rate_limit(each, f"{where}[{at}]") for at, each in enumerate(value))
    raise _wrong(where, value, "a limit such as '100/60s', a dict with a limit and its hours, or a list of these")


def _rate_limit(value: Any, where: str) -> RateLimit:
    if isinstance(value, RateLimit):
        return value
    if isinstance(value, str):
        requests, seconds = _rate(value, where)
        return RateLimit(requests=requests, seconds=seconds)
    given = _mapping(value, where, "a limit such as '100/60s', or a dict with a limit and its hours")
    _only(given, {"limit", "hours", "days", "timezone", "per", "algorithm", "burst"}, where)
    requests, seconds = _rate(given.get("limit"), f"{where}['limit']")
    algorithm = _word(given.get("algorithm", "sliding_window"), f"{where}['algorithm']", get_args(Algorithm))
    if "burst" in given and algorithm != "leaky_bucket":
        message = f'{where} has a burst, which only a leaky_bucket has; expected "algorithm": "leaky_bucket" beside it'
        raise PolicyError(message)
    return RateLimit(
        requests=requests,
        seconds=seconds,
        hours=_hours(given.get("hours", "00:00-24:00"), f"{where}['hours']"),
        days=_days(given.get("days", "mon-sun"), f"{where}['days']"),
        timezone=_timezone(given.get("timezone", "UTC"), f"{where}['timezone']"),
        per=_word(given.get("per", "connection"), f"{where}['per']", get_args(Scope)),
        algorithm=algorithm,
        burst=_count(given.get("burst", 1), f"{where}['burst']"),
    )


_MOST_REQUESTS: Final = 100_000
_SHORTEST: Final = 1e-3
_LONGEST_WINDOW: Final = 31 * 24 * 3600.0
_LONGEST_TIMEOUT: Final = 7 * 24 * 3600.0
_RATE: Final = re.compile(r"\s*([0-9]{1,6})\s*/\s*([0-9]{1,7}(?:\.[0-9]{1,6})?)?\s*([a-z]+)\s*", re.ASCII)
_UNITS: Final = {
    word: seconds
    for words, seconds in (("s second seconds", 1.0), ("m minute minutes", 60.0), ("h hour hours", 3600.0), ("d day days", 86400.0))
    for word in words.split()
}


def _rate(value: Any, where: str) -> tuple[int, float]:
    match = _RATE.fullmatch(value.lower()) if isinstance(value, str) else None
    if match is not None and match[3] in _UNITS:
        requests, seconds = int(match[1]), float(match[2] or 1) * _UNITS[match[3]]
        if 1 <= requests <= _MOST_REQUESTS and _SHORTEST <= seconds <= _LONGEST_WINDOW:
            return requests, seconds
    raise _wrong(where, value, "calls per time such as '100/60s', '5/minute' or '1000/1h', up to 100000 calls and 31 days")


_HOURS: Final = re.compile(r"\s*([0-9]{1,2}):([0-9]{2})\s*-\s*([0-9]{1,2}):([0-9]{2})\s*", re.ASCII)
_DAY: Final = 24 * 60


def _hours(value: Any, where: str) -> tuple[int, int]:
    match = _HOURS.fullmatch(value) if isinstance(value, str) else None
    if match is not None:
        begin, end = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
        if begin < _DAY and end <= _DAY and begin != end and int(match[2]) < 60 and int(match[4]) < 60:  # noqa: PLR2004 -- minutes.
            return begin, end
    raise _wrong(where, value, "hours of the day such as '09:00-17:00' (or '22:00-06:00', past midnight)")


def _days(value: Any, where: str) -> tuple[int, ...]:
    words = [word.strip() for word in value.split(",")] if isinstance(value, str) else value
    if isinstance(words, (list, tuple)) and words:
        found: set[int] = set()
        for word in words:
            first, _, last = word.lower().partition("-") if isinstance(word, str) else ("", "", "")
            last = last or first
            if first not in DAYS or last not in DAYS:
                break
            begin, length = DAYS.index(first), (DAYS.index(last) - DAYS.index(first)) % len(DAYS)
            found.update((begin + more) % len(DAYS) for more in range(length + 1))
        else:
            return tuple(sorted(found))
    raise _wrong(where, value, "days such as 'mon-fri' or 'sat,sun'")


def _timezone(value: Any, where: str) -> str:
    if isinstance(value, str) and value:
        try:
            _zone(value)
        except (ValueError, OSError, KeyError):  # ZoneInfo's own error is a KeyError; what is no file name at all is one of the others.
            pass
        else:
            return value
    raise _wrong(where, value, "a time zone such as 'Europe/Berlin' (in an image without zone data, install the package tzdata)")


def _word(value: Any, where: str, words: tuple[str, ...]) -> Any:
    if isinstance(value, str) and value in words:
        return value
    raise _wrong(where, value, " or ".join(words) if len(words) <= 2 else f"one of {', '.join(words)}")  # noqa: PLR2004 -- a pair.


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    # Loaded by those who have hours in a limit; an exporter, which is kept small, has none.
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)


def _count(value: Any, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_REQUESTS:
        return value
    raise _wrong(where, value, "a whole number from 1 to 100000")


def _duration(value: Any, where: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and _SHORTEST <= value <= _LONGEST_TIMEOUT:
        return float(value)
    raise _wrong(where, value, "a number of seconds above 0, up to a week")


def _is_off(value: Any) -> bool:
    return value is None or value is False or value == "off"


def _share(value: Any, where: str) -> float:
    if _is_off(value):
        return 0.0
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1:
        return float(value)
    raise _wrong(where, value, "a part of the calls above 0, up to 1 (0.5 is half of them), or off")


def _in_a_row(value: Any, where: str) -> int:
    return 0 if _is_off(value) else _count(value, where)


def _patience(value: Any, where: str) -> float:
    return 0.0 if _is_off(value) else _duration(value, where)


def _window(value: Any, where: str) -> float:
    if 1.0 <= _duration(value, where) <= _LONGEST_BREAKER_WINDOW:
        return float(value)
    raise _wrong(where, value, "a number of seconds from 1 up to an hour")


def _probes(value: Any, where: str) -> int:
    if _count(value, where) <= _MOST_PROBES:
        return int(value)
    raise _wrong(where, value, f"a whole number from 1 to {_MOST_PROBES}")


_LONGEST_BREAKER_WINDOW: Final = 3600.0
_MOST_PROBES: Final = 100

_BREAKER_FIELDS: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "failure_threshold": _in_a_row,
    "success_threshold": _count,
    "timeout": _duration,
    "probe_timeout": _duration,
    "probes": _probes,
    "failure_rate": _share,
    "slow_rate": _share,
    "slow_after": _duration,
    "window": _window,
    "minimum_calls": _count,
    "per": lambda value, where: _word(value, where, get_args(BreakerScope)),
    "caller_timeout": _patience,
}


def _mapping(value: Any, where: str, expected: str) -> Mapping[Any, Any]:
    if isinstance(value, Mapping):
        return value
    raise _wrong(where, value, expected)


def _only(given: Mapping[Any, Any], known: set[str], where: str) -> None:
    for name in given:
        if name not in known:
            message = f"{where} has the key {_shown(name)}; expected some of {', '.join(sorted(known))}"
            raise PolicyError(message)


def _wrong(where: str, value: Any, expected: str) -> PolicyError:
    return PolicyError(f"{where} is {_shown(value)}; expected {expected}")


_LONGEST_SHOWN: Final = 80


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}…"
