"""
The reference page of the events: what can be heard, with the fields of each.
"""

from __future__ import annotations

import re

from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final, ForwardRef, Literal, get_args, get_origin

from celery_obs.areas import Area, parts

from .docstrings import attributes_of
from .links import Links
from .render import Output, marked


__all__ = ["build", "events_of"]


_HEAD: Final = """\
# Events

What can be heard, in the order of the areas; [hear events](../how-to/hear-events.md) says how.
An event is a named tuple, and is told in the process, and in the thread, in which it happens.

Durations are in seconds, points in time in seconds since the epoch.
Texts that come from messages, such as ids and exceptions, have no bound: they belong into logs and traces, not into labels of metrics.
Events whose names begin with `Attempt` or `Publish` are those by which metrics, logs, traces and error reports follow a task; hooks rarely need them.
"""


def build(links: Links) -> Iterator[Output]:
    """
    Write the page.
    """
    yield Output("docs/reference/events.md", marked("celery_obs/areas/*/events.py", "".join(_page()), comment="<!--", end=" -->"))


def events_of(part: ModuleType) -> Iterator[type[Any]]:
    """
    Go through the events of an area, in the order in which its file has them.
    """
    for each in vars(part).values():
        if isinstance(each, type) and hasattr(each, "_fields") and each.__module__ == part.__name__:
            yield each


def _page() -> Iterator[str]:
    yield _HEAD
    for area, part in parts("events"):
        yield f"\n## {_title(area)}\n\n{_sentence(part)}\n\nThey are in `{part.__name__}`.\n"
        known: dict[str, tuple[str, ...]] = {}
        for event in events_of(part):
            yield from _event(event, part, known)
        for name, words in known.items():
            yield f"\n`{name}` is one of {', '.join(f'`{word}`' for word in words)}.\n"


def _title(area: Area) -> str:
    return area.name.replace("_", " ").capitalize()


def _sentence(part: ModuleType) -> str:
    sentence = re.split("[:,] ", str(part.__doc__).strip().partition("\n")[0], maxsplit=1)[-1]
    return sentence[:1].upper() + sentence[1:]


def _event(event: type[Any], part: ModuleType, known: dict[str, tuple[str, ...]]) -> Iterator[str]:
    promise, meanings = attributes_of(str(event.__doc__))
    yield f"\n### `{event.__name__}`\n\n{promise}\n\n| field | type | meaning |\n| --- | --- | --- |\n"
    for name in event._fields:
        written = _written(event.__annotations__[name])
        for word in re.findall(r"\b[A-Z]\w+", written):
            value = getattr(part, word, None)
            if get_origin(value) is Literal:
                known[word] = tuple(map(str, get_args(value)))
        default = f" Default: `{event._field_defaults[name]!r}`." if name in event._field_defaults else ""
        yield f"| `{name}` | {_cell(f'`{written}`')} | {_cell(meanings.get(name, '') + default)} |\n"


def _written(annotation: Any) -> str:
    """
    Return an annotation as it stands in the source.
    """
    if isinstance(annotation, ForwardRef):
        return annotation.__forward_arg__
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
