"""
Recording rules: what dashboards and people ask again and again, worked out once; each area has its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from celery_obs.areas import Area, left_out_if_broken, parts

from .links import Links
from .render import Output
from .rules import Group, RecordingRule, rule_file


__all__ = ["CHANNELS_PATH", "GROUPS", "PATH", "build"]


PATH: Final = "deploy/prometheus/rules/recording.yml"
CHANNELS_PATH: Final = "deploy/prometheus/rules/recording-channels.yml"
"""
In a file of their own, so that an app without channels can do without them.
"""


def _groups(*, about_channels: bool) -> tuple[Group, ...]:
    """
    Gather the groups of the areas that are about channels, or of all others, in the order of the areas.
    """
    found: dict[str, list[tuple[Area, tuple[RecordingRule, ...]]]] = {}
    for area, part in parts("recording_rules"):
        if area.is_about_channels is about_channels:
            with left_out_if_broken(area, "recording_rules"):
                found.setdefault(getattr(part, "GROUP", area.name), []).append((area, tuple(part.RULES)))
    return tuple(
        Group(
            name=f"celery_obs_recording_{name}",
            comment=f"rules of {', '.join(area.package.replace('.', '/') for area, _ in members)}.",
            rules=tuple(rule for _, rules in members for rule in rules),
            interval="1m" if about_channels else "30s",
        )
        for name, members in found.items()
    )


_GENERAL: Final = _groups(about_channels=False)
_OF_CHANNELS: Final = _groups(about_channels=True)

GROUPS: Final = (*_GENERAL, *_OF_CHANNELS)


def build(links: Links) -> Iterator[Output]:
    """
    Write the recording rules; no file about channels where no area is about them.
    """
    yield Output(PATH, rule_file("celery_obs/areas", _GENERAL, links))
    if _OF_CHANNELS:
        yield Output(CHANNELS_PATH, rule_file("celery_obs/areas", _OF_CHANNELS, links))
