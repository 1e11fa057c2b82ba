"""
Scripts as they go over the wire: no answer ever reaches another caller.
"""

from __future__ import annotations

import signal

from collections.abc import Iterator

import pytest

from redis import Redis
from redis.connection import Connection
from redis.exceptions import ResponseError

from celery_obs.state.scripts import Prepared, Script, Scripts, call
from tests.servers import RedisServer


pytestmark = pytest.mark.integration

ECHO = Script("return ARGV[1]")


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(redis_server.url, socket_timeout=5, max_connections=1) as client:
        yield client


class StruckError(Exception):
    """
    Stands for SoftTimeLimitExceeded of Celery, which is raised out of a signal handler.
    """


def test_arguments_arrive_as_they_are(redis: Redis) -> None:
    """
    Whatever characters they hold, and whether they were packed before or come later.
    """
    scripts, text = Scripts(redis), 'ä "quoted"\r\n$3\r\n\x00'

    assert text.encode() == scripts.run(call(ECHO, "k", text))
    assert text.encode() == scripts.run(Prepared(ECHO, "k", more=1).with_more(text))


def test_an_error_of_a_script_leaves_the_connection_usable(redis: Redis) -> None:
    """
    Redis' refusal is an answer.
    """
    scripts = Scripts(redis)

    with pytest.raises(ResponseError, match="on purpose"):
        scripts.run(call(Script("return redis.error_reply('ERR on purpose')"), "k"))

    assert b"1" == scripts.run(call(ECHO, "k", 1))


def test_an_answer_that_comes_after_an_interruption_reaches_nobody(redis: Redis, redis_server: RedisServer) -> None:
    """
    A soft time limit may strike in the middle of a round trip; the next one gets its own answer.
    """
    scripts = Scripts(redis)
    scripts.run(call(ECHO, "k", "warm"))

    def strike(*_: object) -> None:
        raise StruckError

    before = signal.signal(signal.SIGALRM, strike)
    try:
        with redis_server.hanging():
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(StruckError):
                scripts.run(call(ECHO, "k", "late"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert [b"1", b"2"] == [scripts.run(call(ECHO, "k", number)) for number in (1, 2)]


def test_an_interruption_between_asking_and_listening_closes_the_connection(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What was asked is answered some time, and the next user of the connection must not hear it.
    """
    scripts = Scripts(redis)
    scripts.run(call(ECHO, "k", "warm"))

    def strike(*_: object, **__: object) -> None:
        raise StruckError

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "read_response", strike)
        with pytest.raises(StruckError):
            scripts.run(call(ECHO, "k", "late"))

    (connection,) = redis.connection_pool._available_connections
    assert connection._sock is None
    assert b"1" == scripts.run(call(ECHO, "k", 1))
