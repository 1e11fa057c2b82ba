"""
What is kept of nodes that are not read any more: their totals, added up, so that a node that is gone costs nothing at a scrape.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from .layout import Layout, header_line, width
from .merge import NodeNumbers


__all__ = ["Kept", "Share"]


class Share(NamedTuple):
    """
    What one node has in the sum: places and numbers, of those that are not 0.
    """

    places: array[int]
    numbers: array[int]


class Kept:
    """
    A sum of nodes that can be taken out of it again.
    """

    def __init__(self) -> None:
        self._layout = Layout()
        self._layout.feed(header_line(1))
        self._lanes: list[int] = []

    def add(self, layout: Layout, lanes: Sequence[int]) -> Share:
        """
        Add a node's totals; return its share.
        """
        share = Share(array("Q"), array("Q"))
        for series in layout:
            if series.family.kind == "gauge":
                continue
            at = self._layout.add(series.family, series.values)
            self._lanes.extend([0] * (self._layout.lanes - len(self._lanes)))
            for place, number in enumerate(lanes[series.at : series.at + width(series.family)], at):
                if number:
                    self._lanes[place] += number
                    share.places.append(place)
                    share.numbers.append(number)
        return share

    def take(self, share: Share) -> None:
        """
        Take a share out, once.
        """
        for place, number in zip(share.places, share.numbers, strict=True):
            self._lanes[place] -= number

    def numbers(self) -> NodeNumbers:
        """
        Return the sum as one node's numbers.
        """
        return NodeNumbers(self._layout, self._lanes)
