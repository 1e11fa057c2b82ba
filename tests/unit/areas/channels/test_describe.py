"""
What is told of an error: enough to find it, no secret in it.
"""

from __future__ import annotations

import pytest

from celery_obs.areas.channels.errors import describe


@pytest.mark.parametrize(
    "text",
    [
        "401 for Authorization: Bearer hush.hush-hush",
        "GET https://user:hush@channel.test/listings",
        "POST /token?refresh_token=hush&grant_type=refresh_token",
        '{"access_token": "hush", "expires_in": 3600}',
        "{'client_secret': 'hush'}",
        "api_key=hush",
        "X-Api-Key: hush",
        "bad password: hush",
        "redis://:hush@host:6379/0 is away",
    ],
)
def test_a_secret_in_a_message_is_not_told(text: str) -> None:
    """
    Credentials that errors of clients carry around stay out of logs.
    """
    assert "hush" not in describe(ValueError(text))[1]


def test_a_message_is_one_short_line() -> None:
    """
    A page of HTML in an error does not become a page of log.
    """
    _, message = describe(ValueError("<html>\n" + "x " * 10_000))

    assert message.startswith("<html> x x")
    assert 301 == len(message)


def test_an_error_that_cannot_be_shown_is_named() -> None:
    """
    A broken __str__ costs the message alone.
    """

    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert ("BrokenError", "") == describe(BrokenError())
