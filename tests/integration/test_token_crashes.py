"""
A process that refreshes is killed, with a signal that cannot be caught, at each of ten points: no token is lost where the channel allows that.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_obs.areas.channels.connections.state import TokenExpiry
from celery_obs.areas.channels.tokens import api as tokens
from celery_obs.areas.channels.tokens.api import POINTS, Token
from celery_obs.demo.provider import Provider
from tests.servers import RedisServer
from tests.tokens import Rig, rig_of


pytestmark = pytest.mark.integration

PROGRAM = """
import os, signal, sys
from celery_obs.areas.channels.tokens import api as tokens
from tests.tokens import rig_of

redis_url, token_url, connection_id, last = sys.argv[1:]

def die(point):
    if point == last:
        os.kill(os.getpid(), signal.SIGKILL)

tokens.reached, tokens.LEAD = die, 5.0
with rig_of(redis_url, token_url=token_url):
    tokens.refresh(connection_id)
"""

UNANSWERED = ("begun", "read", "permitted", "intended", "asking")
NOWHERE = ("answered", "understood")
STORED = ("stored", "noted", "cleared")


class Died:
    """
    What ten processes left that died, each at another point.

    Attributes:
        before: The tokens that they began with, by connection.

        found: The tokens that were stored right after.
    """

    def __init__(self, rig: Rig, provider: Provider, redis_url: str) -> None:
        self.rig = rig
        self.provider = provider
        self.before: dict[str, Token] = {}
        for point in POINTS:
            rig.connect(point, provider.accounts.authorize(point))
            self.before[point] = _stored(point)
        _kill_at_each(redis_url, provider.token_url)
        self.found = {point: _stored(point) for point in POINTS}
        self.good = {point: provider.accounts.accepts(token.refresh_token) for point, token in self.found.items()}
        self.open = dict(rig.facts.refreshes())


def _stored(connection_id: str) -> Token:
    found = tokens.get(connection_id)
    assert found is not None
    return found


def _kill_at_each(redis_url: str, token_url: str) -> None:
    root = str(Path(__file__).parents[2])
    started = {
        point: subprocess.Popen(
            [sys.executable, "-c", PROGRAM, redis_url, token_url, point, point], cwd=root, stderr=subprocess.PIPE, text=True
        )
        for point in POINTS
    }
    try:
        said = {point: process.communicate(timeout=60)[1] for point, process in started.items()}
    finally:
        for process in started.values():
            process.kill()
            process.wait()
    for point, process in started.items():
        assert -signal.SIGKILL == process.returncode, f"It did not die at {point}: {said[point][-2000:]}"


@pytest.fixture(scope="module", autouse=True)
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def lenient(redis_server: RedisServer) -> Iterator[Died]:
    """
    At a channel that takes the old refresh token until the new one was used.
    """
    with Provider(reuse_grace=True) as provider, rig_of(redis_server.url_of(0), token_url=provider.token_url) as rig:
        yield Died(rig, provider, redis_server.url_of(0))


@pytest.fixture(scope="module")
def strict(redis_server: RedisServer) -> Iterator[Died]:
    """
    At a channel that takes a refresh token once.
    """
    with Provider() as provider, rig_of(redis_server.url_of(1), token_url=provider.token_url) as rig:
        yield Died(rig, provider, redis_server.url_of(1))


def test_the_ten_points_are_all_there_is() -> None:
    """
    The tests below speak of each point once.
    """
    assert POINTS == UNANSWERED + NOWHERE + STORED
    assert 10 == len(POINTS)


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_leaves_the_old_token_good_or_the_new_one_stored(lenient: Died, point: str) -> None:
    """
    Right after the kill, what is stored is a token that the channel takes.
    """
    assert lenient.good[point]
    assert (point in STORED) == (lenient.found[point] != lenient.before[point])


@pytest.mark.parametrize("point", POINTS)
def test_the_next_run_recovers(lenient: Died, point: str) -> None:
    """
    It ends with a token that the channel takes, what the cluster knows is right again, and nothing is open.
    """
    outcome = tokens.refresh(point, wait=20)

    token = _stored(point)
    assert ("fresh" if point in STORED else "refreshed") == outcome.status
    assert lenient.provider.accounts.accepts(token.refresh_token)
    assert lenient.provider.accounts.who(token.access_token) == point
    assert TokenExpiry(token.expires_at, token.lifetime) == lenient.rig.facts.token_expiries()[point]
    assert point not in lenient.rig.facts.refreshes()
    assert "active" == lenient.rig.facts.connections()[point].status


@pytest.mark.parametrize("point", POINTS)
def test_a_refresh_that_died_is_noted_for_the_next_scan(lenient: Died, point: str) -> None:
    """
    From before the request until nothing is open any more, a scan sees that a process died.
    """
    noted = ("intended", "asking", *NOWHERE, "stored", "noted")

    assert (point in noted) == (point in lenient.open)
    if point in noted:
        assert 0 <= time.time() - lenient.open[point] < 120


@pytest.mark.parametrize("point", [*UNANSWERED, *STORED])
def test_a_strict_channel_loses_no_token_either_where_it_has_not_answered_or_we_have_stored(strict: Died, point: str) -> None:
    """
    Before the answer the old token is good, after the store the new one is.
    """
    assert strict.good[point]
    assert strict.provider.accounts.accepts(_stored(point).refresh_token)
    tokens.refresh(point, wait=20)
    assert strict.provider.accounts.accepts(_stored(point).refresh_token)


@pytest.mark.parametrize("point", NOWHERE)
def test_where_a_strict_channel_allows_nothing_the_customer_is_asked(strict: Died, point: str) -> None:
    """
    Between the answer and the store the new token is nowhere, and the channel does not take the old one: the connection says so.
    """
    assert not strict.good[point]

    with pytest.raises(tokens.TokenRefusedError, match="authorise again"):
        tokens.refresh(point, wait=20)

    assert "error" == strict.rig.facts.connections()[point].status
