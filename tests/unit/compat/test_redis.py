"""
What we assume of redis-py holds on the version that is installed.
"""

from __future__ import annotations

import socket

from types import SimpleNamespace
from typing import Any

import pytest
import redis

from celery_obs.compat import redis as compat
from celery_obs.state.scripts import Scripts, command


def test_a_packed_command_is_sent_and_one_answer_read() -> None:
    """
    A connection writes the bytes as they are and reads one answer.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connection: Any = redis.Connection(
            host="127.0.0.1", port=listening.getsockname()[1], redis_connect_func=lambda made: made._parser.on_connect(made)
        )
        connection.connect()
        server, _ = listening.accept()
        with server:
            server.sendall(b"+PONG\r\n")
            packed = b"*1\r\n$4\r\nPING\r\n"

            assert compat.exchange(connection, packed) in {b"PONG", "PONG"}

            assert server.recv(100) == packed
        connection.disconnect()


def test_a_greeting_reads_its_answers_by_the_method_that_is_replaced() -> None:
    """
    A new connection's greeting takes each answer from what was put in the place of the method.
    """
    connection: Any = redis.Connection(db=3, password="secret", client_name="compat", protocol=2)
    connection._parser = SimpleNamespace(on_connect=lambda _: None)
    connection.send_command = lambda *_, **__: None
    read: list[object] = []

    def answer(*_: object, **__: object) -> bytes:
        """
        Count and agree.
        """
        read.append(_)
        return b"OK"

    setattr(connection, compat.READ, answer)

    connection.on_connect()

    assert len(read) >= 3


@pytest.mark.parametrize("kind", [redis.Connection, redis.SSLConnection, redis.UnixDomainSocketConnection])
def test_every_kind_of_connection_takes_packed_commands(kind: type) -> None:
    """
    A pool of any of redis-py's connections can, and one that does not say what it is made of cannot.
    """
    assert compat.can_exchange(redis.ConnectionPool(connection_class=kind))
    assert not compat.can_exchange(SimpleNamespace())


def test_without_packed_commands_the_client_is_asked() -> None:
    """
    Where connections have no such methods, commands go through the client as any other.
    """
    client: Any = redis.Redis()
    client.connection_pool.connection_class = SimpleNamespace()
    asked: list[Any] = []
    client.execute_command = lambda *words: asked.append(words)

    Scripts(client).send(command("GET", "compat"))

    assert asked == [("GET", "compat")]
