"""
How Grafana writes a number in each of its units, and where it puts the lines behind a course.
"""

from __future__ import annotations

import math

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias


__all__ = ["UNITS", "lines", "written"]


_Writer: TypeAlias = Callable[[float, "int | None"], str]

_SECONDS: Final = (
    ("year", 31536000.0),
    ("month", 2628000.0),
    ("week", 604800.0),
    ("day", 86400.0),
    ("hour", 3600.0),
    ("minute", 60.0),
    ("second", 1.0),
    ("millisecond", 0.001),
)
_SHORT_SECONDS: Final = (
    ("year", 31536000.0),
    ("week", 604800.0),
    ("day", 86400.0),
    ("hour", 3600.0),
    ("min", 60.0),
    ("s", 1.0),
    ("ms", 1e-3),
    ("µs", 1e-6),
    ("ns", 1e-9),
)
_TEN_SECONDS: Final = 10.0
"""
Up to here lines are round in tens, and from here on in minutes.
"""

_ROOM: Final = 9
"""
Decimals beyond which a number is as good as 0.
"""

_MANY: Final = ("", " K", " Mil", " Bil", " Tri")
_COUNTS: Final = ("", "K", "M", "B", "T")


def written(value: float, unit: str, decimals: int | None = None) -> str:
    """
    Write *value* in *unit*, with as many *decimals* as Grafana finds right where it is not said how many.

    Raises:
        ValueError: for a unit that is not of `UNITS`.
    """
    if unit not in UNITS:
        message = f"Nothing is known of the unit {unit!r}. Expected one of {', '.join(sorted(UNITS))}; teach pictures.units a new one."
        raise ValueError(message)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return UNITS[unit](value, decimals)


def lines(low: float, high: float, unit: str, *, most: int = 5) -> list[float]:
    """
    Choose the values at which lines lie behind a course from *low* to *high*: few, round in their unit, the first not above *low*.
    """
    span = high - low
    if not span > 0:
        return [low]
    step = next(step for step in _steps(span / most, unit) if step >= span / most * 0.999)
    first = math.floor(low / step + 1e-9)
    found: list[float] = []
    while not found or found[-1] < high - step * 1e-9:
        found.append((first + len(found)) * step)
    return found


def _steps(about: float, unit: str) -> list[float]:
    """
    Return the widths near *about* that are round in *unit*, in order.
    """
    if unit in {"s", "dtdurations"} and about > _TEN_SECONDS:
        return [15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, *(86400 * steps for steps in _tens(about / 86400))]
    if unit == "bytes" and about >= 1:
        scale = 1024.0 ** math.floor(math.log(about, 1024))
        return [scale * factor for factor in (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 200, 256, 512, 1024)]
    return _tens(about)


def _tens(about: float) -> list[float]:
    """
    Return the widths 1, 2 and 5 times a power of ten, from just below *about*; at least 1 where *about* is more.
    """
    power = math.floor(math.log10(about)) if about > 0 else 0
    return [factor * 10.0**exponent for exponent in (power, power + 1) for factor in (1, 2, 5)]


# -- one function a unit ------------------------------------------------------------------------------------------------


def _fixed(value: float, decimals: int | None = None) -> str:
    """
    Write three digits that count, and no decimals for what has none, if nothing else is said; at most as many as there is room for.
    """
    if decimals is None:
        decimals = 0 if float(value).is_integer() else min(max(0, 2 - math.floor(math.log10(abs(value)))), _ROOM)
    return f"{value + 0.0:.{decimals}f}"  # No minus before a zero.


def _scaled(factor: float, names: tuple[str, ...], after: str = "") -> _Writer:
    def write(value: float, decimals: int | None) -> str:
        place = 0
        while abs(value) >= factor and place + 1 < len(names):
            value, place = value / factor, place + 1
        return f"{_fixed(value, decimals)}{names[place]}{after}"

    return write


def _ratio(value: float, decimals: int | None) -> str:
    return f"{_fixed(round(100 * value, 12), decimals)}%"


def _seconds(value: float, decimals: int | None) -> str:
    if value == 0:
        return "0 s"
    name, length = next(((name, length) for name, length in _SHORT_SECONDS if abs(value) >= length), _SHORT_SECONDS[-1])
    number = _fixed(value / length, decimals)
    many = "s" if name in {"year", "week", "day", "hour", "min"} and number != "1" else ""
    return f"{number} {name}{many}"


def _duration(value: float, decimals: int | None) -> str:
    """
    Write the largest unit of a duration only; what is below 0 was.
    """
    if value < 0:
        return f"{_duration(-value, decimals)} ago"
    name, length = next(((name, length) for name, length in _SECONDS if value >= length), ("second", 1.0))
    whole = math.floor(value / length)
    return f"{whole} {name}{'' if whole == 1 else 's'}"


UNITS: Final[Mapping[str, _Writer]] = {
    "none": _fixed,
    "short": _scaled(1000, _MANY),
    "percentunit": _ratio,
    "s": _seconds,
    "dtdurations": _duration,
    "ops": _scaled(1000, _COUNTS, " ops/s"),
    "opm": _scaled(1000, _COUNTS, " ops/m"),
    "reqps": _scaled(1000, _COUNTS, " req/s"),
    "bytes": _scaled(1024, (" B", " KiB", " MiB", " GiB", " TiB", " PiB")),
    "decbytes": _scaled(1000, (" B", " kB", " MB", " GB", " TB", " PB")),
}
"""
The units that our panels use, by Grafana's names for them.
"""
