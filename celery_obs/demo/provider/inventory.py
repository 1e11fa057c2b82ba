"""
What the fake channel holds for available: the same as we do, but for the days on which it has drifted.
"""

from __future__ import annotations

import threading
import zlib

from collections.abc import Iterable, Mapping
from datetime import date, timedelta


__all__ = ["Inventory", "availability", "days_between"]


MOST_DRIFTED_DAYS = 100_000
_MOST_ROOMS = 4


def availability(listing: str, day: date) -> int:
    """
    Return how many rooms of *listing* are free on *day*: the truth, which both sides would hold if nothing ever went wrong.
    """
    return zlib.crc32(f"{listing}:{day.isoformat()}".encode("utf-8", "surrogatepass")) % _MOST_ROOMS


def days_between(start: date, end: date) -> Iterable[date]:
    """
    Name the days from *start* to *end*, the last one included.
    """
    return (start + timedelta(days=offset) for offset in range((end - start).days + 1))


class Inventory:
    """
    The calendars of all listings of all channels.

    Threads: safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._other: dict[tuple[str, str, date], int] = {}

    def calendar(self, channel: str, listing: str, start: date, end: date) -> dict[date, int]:
        """
        Return the free rooms by day.
        """
        with self._lock:
            return {day: self._other.get((channel, listing, day), availability(listing, day)) for day in days_between(start, end)}

    def write(self, channel: str, listing: str, days: Mapping[date, int]) -> int:
        """
        Set the free rooms of some days; return on how many days that changed something.

        Raises:
            ValueError: when there are more days than it has room for.
        """
        changed = 0
        with self._lock:
            for day, rooms in days.items():
                key = (channel, listing, day)
                truth = availability(listing, day)
                changed += self._other.get(key, truth) != rooms
                if rooms == truth:
                    self._other.pop(key, None)
                elif key in self._other or len(self._other) < MOST_DRIFTED_DAYS:
                    self._other[key] = rooms
                else:
                    message = f"The fake channel has room for {MOST_DRIFTED_DAYS} days that differ from the truth, and all are taken."
                    raise ValueError(message)
        return changed

    def drift(self, channel: str, listing: str, days: Iterable[date]) -> int:
        """
        Sell a room behind our back on each of *days* (or give one back, where none was left); return how many days that were.
        """
        now = {day: self.calendar(channel, listing, day, day)[day] for day in days}
        return self.write(channel, listing, {day: rooms - 1 if rooms else 1 for day, rooms in now.items()})

    def drifted(self) -> int:
        """
        Return how many days differ from the truth, over all channels.
        """
        with self._lock:
            return len(self._other)
