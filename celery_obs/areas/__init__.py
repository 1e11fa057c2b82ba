"""
What can be watched: one folder an area, with everything about it in files of the same names.

The rooms (the runtime, the sidecar, the rules, the commands) name no area: they go through `AREAS` and take the parts that they work with.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Final, NamedTuple


__all__ = ["AREAS", "Area", "parts"]


class Area(NamedTuple):
    """
    One area.

    Attributes:
        name: What its files of rules and its pages are called.

        package: Its folder, as Python names it.
    """

    name: str
    package: str

    def part(self, name: str) -> ModuleType | None:
        """
        Import a part, such as ``metrics`` or ``alerts``; None if the area has no file of that name.
        """
        whole = f"{self.package}.{name}"
        return import_module(whole) if find_spec(whole) is not None else None


def _ours(name: str, place: str = "") -> Area:
    return Area(name, f"{__name__}.{place or name}")


AREAS: Final[tuple[Area, ...]] = (
    _ours("tasks"),
    _ours("workers"),
    _ours("queues"),
    _ours("beat", "schedules"),
    _ours("syncs", "channels.syncs"),
    _ours("api_calls", "channels.api_calls"),
    _ours("rate_limiter", "channels.rate_limits"),
    _ours("circuit_breaker", "channels.breakers"),
    _ours("webhooks", "channels.webhooks"),
    _ours("tokens", "channels.tokens"),
    _ours("connections", "channels.connections"),
    _ours("conflicts", "channels.conflicts"),
    _ours("reconciliation", "channels.reconciliation"),
    _ours("ourselves", "sidecar"),
)
"""
All areas, in the order in which a reader meets them.
"""


def parts(name: str) -> Iterator[tuple[Area, ModuleType]]:
    """
    Go through the parts of that name, such as ``alerts``, of all areas that have one.
    """
    for area in AREAS:
        part = area.part(name)
        if part is not None:
            yield area, part
