"""
What workers and publishers tell the exporter through Redis: the queues that they know, and how the broker's keys are spelled.
"""

from __future__ import annotations

import json
import math

from dataclasses import dataclass
from typing import Any, Final


__all__ = ["DEFAULT_PRIORITY_STEPS", "DEFAULT_SEPARATOR", "DEFAULT_UNACKED_KEY", "QueueAnnouncement", "decode_queue", "encode_queue"]


DEFAULT_PRIORITY_STEPS: Final = (0, 3, 6, 9)
DEFAULT_SEPARATOR: Final = "\x06\x16"
DEFAULT_UNACKED_KEY: Final = "unacked"

_MOST_STEPS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueAnnouncement:
    """
    A worker's word about a queue that it consumes from, or a publisher's about one that it knows.

    Attributes:
        seen: When it said so, in seconds since the epoch.

        exchange: The exchange that the queue is bound to, where it is not called as the queue is.

        label: The label value that it shares with all of its kind; empty for a queue that has its name for good.

        broker: Host and database of the broker, without credentials.

        consumed: Whether a worker said so, so that the queue exists though it may be empty.  Not written: each of the two hashes has one kind.

        priority_steps, sep, global_keyprefix, unacked_key:
            The worker's transport options of these names, which decide how the Redis transport spells its keys.
    """

    seen: float
    exchange: str = ""
    label: str = ""
    broker: str = ""
    consumed: bool = True
    priority_steps: tuple[int, ...] = DEFAULT_PRIORITY_STEPS
    sep: str = DEFAULT_SEPARATOR
    global_keyprefix: str = ""
    unacked_key: str = DEFAULT_UNACKED_KEY


def encode_queue(announcement: QueueAnnouncement) -> str:
    """
    Write *announcement* as the JSON that goes into the hash; what has its default value is left out.
    """
    written: dict[str, Any] = {"seen": announcement.seen}
    if announcement.priority_steps != DEFAULT_PRIORITY_STEPS:
        written["priority_steps"] = list(announcement.priority_steps)
    for name, default in _TEXTS.items():
        value = getattr(announcement, name)
        if value != default:
            written[name] = value
    return json.dumps(written)


def decode_queue(written: str, *, consumed: bool = True) -> QueueAnnouncement | None:
    """
    Read what :func:`encode_queue` wrote.

    Unknown keys are for later versions of us and ignored; None for anything that is no announcement.
    """
    try:
        data = json.loads(written)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    seen: Any = data.get("seen")
    steps = data.get("priority_steps", DEFAULT_PRIORITY_STEPS)
    texts = {name: data.get(name, default) for name, default in _TEXTS.items()}
    if not _is_time(seen) or not _are_steps(steps) or not all(isinstance(text, str) for text in texts.values()):
        return None
    return QueueAnnouncement(seen=float(seen), priority_steps=tuple(steps), consumed=consumed, **texts)


_TEXTS: Final = {
    "exchange": "",
    "label": "",
    "broker": "",
    "sep": DEFAULT_SEPARATOR,
    "global_keyprefix": "",
    "unacked_key": DEFAULT_UNACKED_KEY,
}


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15 and math.isfinite(value)  # noqa: PLR2004 -- no clock says more.


def _are_steps(value: object) -> bool:
    return (
        isinstance(value, (list, tuple))
        and 0 < len(value) <= _MOST_STEPS
        and all(isinstance(step, int) and not isinstance(step, bool) and abs(step) < 1 << 31 for step in value)
    )
