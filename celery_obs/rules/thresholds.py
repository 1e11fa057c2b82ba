"""
Thresholds: the numbers of an alert, as data, and how they are written in PromQL, in sentences and by those who change them.
"""

from __future__ import annotations

import re

from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal, TypeAlias

from celery_obs.exceptions import ConfigurationError


__all__ = ["DAY", "Threshold", "Unit", "amount", "in_promql", "in_words", "is_duration", "part", "seconds"]


Unit: TypeAlias = Literal["amount", "part", "seconds"]
"""
*amount* counts something, *part* is one of a whole, *seconds* is a time.
"""

DAY: Final = 86_400

_UNITS: Final = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(DAY), "w": Decimal(7 * DAY)}
_PIECE: Final = re.compile(r"([0-9]+)(ms|[smhdw])", re.ASCII)
_DURATION: Final = re.compile(r"([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?", re.ASCII)
_WORDS: Final = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """
    What a value is held against.

    Attributes:
        value: Exactly as it was written.

        unit: What it is of.

        above, below: Between what it has to be, both exclusive: beyond them the alert would never fire, or always.
    """

    value: Decimal
    unit: Unit
    above: Decimal | None = None
    below: Decimal | None = None

    def __post_init__(self) -> None:
        """
        Refuse what the alert could never be right with.
        """
        low, high = self.above, self.below
        if self.unit == "part" and not 0 <= self.value <= 1:
            message = f"It is {in_promql(self.value)}. Expected a part between 0 and 1, such as 0.1 or 10%."
            raise ConfigurationError(message)
        if (low is not None and self.value <= low) or (high is not None and self.value >= high):
            bounds = [f"{word} {self._spoken(bound)}" for word, bound in (("more than", low), ("less than", high)) if bound is not None]
            message = f"It is {self.spoken}. Expected {' and '.join(bounds)}: beyond that the alert would never fire, or always."
            raise ConfigurationError(message)

    @property
    def promql(self) -> str:
        """
        As it stands in an expression.
        """
        return in_promql(self.value)

    @property
    def spoken(self) -> str:
        """
        As it stands in a sentence: ``10%``, ``2h``, ``1000``.
        """
        return self._spoken(self.value)

    def parsed(self, text: str) -> Threshold:
        """
        Return the threshold of the same kind that a person wrote: ``10%`` or ``0.1``, ``2h`` or ``7200``, ``1000``.

        Raises:
            ConfigurationError: saying what is expected.
        """
        return Threshold(value=self._value(text), unit=self.unit, above=self.above, below=self.below)

    def _value(self, text: str) -> Decimal:
        if self.unit == "seconds" and is_duration(text):
            return sum((int(number) * _UNITS[unit] for number, unit in _PIECE.findall(text)), start=Decimal(0))
        number = text[:-1] if self.unit == "part" and text.endswith("%") else text
        if _NUMBER.fullmatch(number) is None:
            likely = {"amount": "a number such as 1000", "part": "a part such as 0.1 or 10%", "seconds": "a duration such as 90s or 2h"}
            message = f"There is {text!r}. Expected {likely[self.unit]}."
            raise ConfigurationError(message)
        return Decimal(number) / (1 if number == text else 100)

    def _spoken(self, value: Decimal) -> str:
        if self.unit == "part":
            return f"{in_promql(value * 100)}%"
        return _time(value) if self.unit == "seconds" else in_promql(value)


def amount(value: float, *, below: float | None = None) -> Threshold:
    """
    So many.
    """
    return Threshold(value=Decimal(str(value)), unit="amount", below=_exactly(below))


def part(value: float) -> Threshold:
    """
    So much of a whole, between 0 and 1.
    """
    return Threshold(value=Decimal(str(value)), unit="part")


def seconds(value: float, *, above: float | None = None, below: float | None = None) -> Threshold:
    """
    So long.
    """
    return Threshold(value=Decimal(str(value)), unit="seconds", above=_exactly(above), below=_exactly(below))


def is_duration(text: str) -> bool:
    """
    Tell whether *text* is a duration as Prometheus writes it, such as ``15m`` or ``1h30m``.
    """
    return bool(text) and _DURATION.fullmatch(text) is not None


def in_promql(value: Decimal) -> str:
    """
    Write a number with all its digits and no exponent.
    """
    return f"{value.normalize():f}"


def in_words(duration: str) -> str:
    """
    Write a duration of Prometheus for people: ``15m`` is *15 minutes*.
    """
    found = _PIECE.fullmatch(duration)
    if found is None or found[2] not in _WORDS:
        return duration
    return f"{found[1]} {_WORDS[found[2]]}{'' if found[1] == '1' else 's'}"


def _time(value: Decimal) -> str:
    if value and value % DAY == 0 and value > DAY:
        return f"{in_promql(value / DAY)} days"
    if value and value % _UNITS["h"] == 0:
        return f"{in_promql(value / _UNITS['h'])}h"
    if value > _UNITS["m"] and value % _UNITS["m"] == 0:
        return f"{in_promql(value / _UNITS['m'])}m"
    return f"{in_promql(value * 1000)}ms" if 0 < value < 1 else f"{in_promql(value)}s"


def _exactly(value: float | None) -> Decimal | None:
    return None if value is None else Decimal(str(value))
