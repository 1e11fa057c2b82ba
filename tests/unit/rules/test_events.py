"""
The page of the events: every one, with a meaning for every field.
"""

from __future__ import annotations

from typing import Any

import pytest

from celery_obs.areas import parts
from celery_obs.rules import events
from celery_obs.rules.docstrings import attributes_of
from celery_obs.rules.events import events_of
from celery_obs.rules.links import Links


EVENTS = [event for area, part in parts("events") if area.is_ours for event in events_of(part)]


@pytest.mark.parametrize("event", EVENTS, ids=[event.__name__ for event in EVENTS])
def test_every_field_of_an_event_has_a_meaning(event: type[Any]) -> None:
    """
    Who hears an event finds each of its fields on the page, with its unit; and none that it does not have.
    """
    _, meanings = attributes_of(str(event.__doc__))

    assert set(event._fields) == set(meanings)


def test_the_page_has_every_event_under_its_area() -> None:
    """
    A reader goes from area to event to field.
    """
    [page] = events.build(Links())

    assert [f"### `{event.__name__}`" for event in EVENTS] == [line for line in page.text.splitlines() if line.startswith("### ")]
    assert "| `runtime` | `float` | Seconds between prerun and postrun. |\n" in page.text
    assert "`TaskState` is one of `success`, `failure`," in page.text
    assert "| `delay` | `float` | Seconds until it comes again. |\n| `reason` | `HoldReason` | Why. Default: `'paused'`. |\n" in page.text


def test_every_area_names_its_events() -> None:
    """
    What is on the page can be imported with a star.
    """
    for area, part in parts("events"):
        assert not area.is_ours or {event.__name__ for event in events_of(part)} <= set(part.__all__)
