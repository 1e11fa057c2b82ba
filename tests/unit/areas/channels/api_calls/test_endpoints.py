"""
Endpoints: templates stay, paths with ids become templates, and there are never too many.
"""

from __future__ import annotations

import logging

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.channels.api_calls.endpoints import Endpoints, template_of
from celery_obs.vocabulary.spec import OTHER


@pytest.mark.parametrize(
    "template",
    [
        "/",
        "/listings",
        "/listings/{id}/calendar",
        "/listings/{listing_id}",
        "/v2/listings/:id",
        "/v1.1/oauth2/token",
        "/users/<int:id>",
        "/rest/s3/availability-export.json",
        "/$metadata",
        "/internationalization_settings",
    ],
)
def test_a_template_stays_what_it_is(template: str) -> None:
    """
    Routes as frameworks spell them are label values already.
    """
    assert template == template_of(template)


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/listings/42", "/listings/{id}"),
        ("listings/42/", "/listings/{id}"),
        ("/listings/123e4567-e89b-12d3-a456-426614174000/calendar", "/listings/{id}/calendar"),
        ("/listings/deadbeefcafe", "/listings/{id}"),
        ("/calendar/2026-11-21", "/calendar/{id}"),
        ("/guests/ada%40example.org", "/guests/{id}"),
        ("/guests/ada@example.org", "/guests/{id}"),
        ("/t/eyJhbGciOiJIUzI1NiJ9", "/t/{id}"),
        ("/t/AbCdEfGhIjKlMnOpQrStUvWx", "/t/{id}"),
        ("/r/RES-12345", "/r/{id}"),
        ('/o\'clock/"x"', "/{id}/{id}"),
        ("https://user:secret@channel.test/listings/42?token=secret#part", "/listings/{id}"),
        ("//channel.test/listings", "/listings"),
        ("/listings?limit=5", "/listings"),
        ("/listings#/photos", "/listings"),
        ("/a" * 50, "/a" * 12 + "/*"),
        ("/" + "x" * 10_000, "/{id}"),
        ("", "/"),
        ("/\n\x00/ü", "/{id}/{id}"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_path_with_ids_becomes_a_template(path: str, template: str) -> None:
    """
    Whatever names one thing of many is an id; what names secrets is not even looked at.
    """
    assert template == template_of(path)


@given(path=st.text(max_size=100))
def test_making_a_template_twice_changes_nothing(path: str) -> None:
    """
    A template is a template of itself: short, printable, without a query.
    """
    template = template_of(path)

    assert template == template_of(template)
    assert template.startswith("/")
    assert template.isprintable()
    assert len(template) < 600


def test_ten_thousand_endpoints_are_two_hundred(caplog: pytest.LogCaptureFixture) -> None:
    """
    Words that no rule takes for ids are bounded all the same, and that is said once.
    """
    endpoints = Endpoints()
    letters = "abcdefghij"
    names = [f"/{a}{b}{c}{d}" for a in letters for b in letters for c in letters for d in letters]

    with caplog.at_level(logging.WARNING, logger="celery_obs"):
        labels = {endpoints.label("airbnb", name) for name in names}

    assert 201 == len(labels)
    assert (OTHER, True) in labels
    assert 1 == len(caplog.records)


def test_what_was_given_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """
    A path may hold anything, so the log shows the template alone.
    """
    with caplog.at_level(logging.WARNING, logger="celery_obs"):
        Endpoints().label("airbnb", "/hush-12345?token=hush")

    assert "hush" not in caplog.text
    assert "/{id}" in caplog.text


def test_ten_thousand_channels_are_bounded_too() -> None:
    """
    Channels that are not configured do not grow the memory of a worker.
    """
    endpoints = Endpoints()

    labels = [endpoints.label(f"channel-{number}", "/listings")[0] for number in range(10_000)]

    assert 200 == labels.count("/listings")
    assert 200 == len(endpoints._seen)
