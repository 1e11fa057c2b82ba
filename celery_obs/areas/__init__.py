"""
What can be watched: one folder an area, with everything about it in files of the same names.

The rooms (the runtime, the sidecar, the rules, the commands) name no area: they go through `AREAS` and take the parts that they work with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

        commands: The commands in its ``commands`` by the word that people type, each with a sentence for the overview, which loads none of them.
    """

    name: str
    package: str
    commands: Mapping[str, str] = {}

    def part(self, name: str) -> ModuleType | None:
        """
        Import a part, such as ``metrics`` or ``alerts``; None if the area has no file of that name.
        """
        whole = f"{self.package}.{name}"
        return import_module(whole) if find_spec(whole) is not None else None


def _ours(name: str, place: str = "", **commands: str) -> Area:
    return Area(name, f"{__name__}.{place or name}", {word.replace("_", "-"): sentence for word, sentence in commands.items()})


AREAS: Final[tuple[Area, ...]] = (
    _ours("tasks"),
    _ours("workers"),
    _ours("queues"),
    _ours("beat", "schedules"),
    _ours("syncs", "channels.syncs"),
    _ours("api_calls", "channels.api_calls"),
    _ours("rate_limiter", "channels.rate_limits", rate_limit="Forget what rate limits count."),
    _ours("circuit_breaker", "channels.breakers", breaker="See circuit breakers, and overrule them."),
    _ours("webhooks", "channels.webhooks"),
    _ours("tokens", "channels.tokens", tokens="See how long tokens are good for."),
    _ours("connections", "channels.connections"),
    _ours("conflicts", "channels.conflicts"),
    _ours("reconciliation", "channels.reconciliation", reconciliation="See what reconciliation found."),
    _ours("pauses", "channels.pauses", channel="Pause channels and let them go on."),
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
