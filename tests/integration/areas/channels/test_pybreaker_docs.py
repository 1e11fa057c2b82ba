"""
The page about moving from pybreaker runs as it stands: both sides do the same.
"""

from __future__ import annotations

import re

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pybreaker
import pytest

from celery import Celery
from redis import Redis

from celery_obs import circuit_breaker
from celery_obs.areas.channels.errors import CircuitOpenError
from tests.servers import RedisServer

from .conftest import Stage


pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[4] / "docs" / "how-to" / "move-from-pybreaker.md"


def ask_airbnb(listing: str) -> str:
    """
    Answer, refuse, or fail.
    """
    if listing == "down":
        raise ConnectionError
    if listing == "wrong":
        raise ValueError
    return f"calendar of {listing}"


def before_and_after() -> tuple[dict[str, Any], dict[str, Any]]:
    """
    Return the names that the page's blocks define, those before and those after.
    """
    first, *others = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: list[dict[str, Any]] = []
    for blocks in ([first], others):
        there: dict[str, Any] = {"ask_airbnb": ask_airbnb, "app": Celery("proj", broker="memory://", set_as_current=False)}
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), there)  # noqa: S102 -- our own page.
        names.append(there)
    return names[0], names[1]


@pytest.fixture
def pages(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    before, after = before_and_after()
    with Stage(redis_server.url, tmp_path, channels=after["app"].conf.celery_obs["channels"]):
        yield before, after


def test_both_sides_open_after_as_many_failures(pages: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """
    Five in a row, of the decorated function; then the other function returns nothing on both sides.
    """
    for there, open_error in zip(pages, (pybreaker.CircuitBreakerError, CircuitOpenError), strict=True):
        assert "calendar of 1" == there["fetch_calendar"]("1") == there["push_prices"]("1")
        for _ in range(5):
            with pytest.raises((ConnectionError, open_error)):
                there["fetch_calendar"]("down")

        assert there["push_prices"]("1") is None
        with pytest.raises(open_error):
            there["fetch_calendar"]("1")


def test_an_error_that_is_excluded_by_hand_says_nothing(pages: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """
    And others count.
    """
    _, after = pages
    assert "calendar of 1" == after["fetch_prices"]("1")
    for _ in range(9):
        with pytest.raises(ValueError, match=r"^$"):
            after["fetch_prices"]("wrong")
    assert "closed" == circuit_breaker.registry.get_breaker("airbnb").state

    for _ in range(5):
        with pytest.raises(ConnectionError):
            after["fetch_prices"]("down")
    assert "open" == circuit_breaker.registry.get_breaker("airbnb").state
