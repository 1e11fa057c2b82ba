"""
redis-py: one command on one connection, without what the client does besides.
"""

from __future__ import annotations

from typing import Any, Final


__all__ = ["READ", "can_exchange", "exchange"]


READ: Final = "read_response"
"""
The name of the method by which a connection reads an answer; it is replaced while a new connection is greeted, to limit the time of all answers together.

Assumes: ``on_connect()`` of a connection reads each answer by ``self.read_response(…)``.
Seen on: redis-py 4.6 to 8.1.
Lost: a Redis that answers slowly may hold up a new connection for one timeout an answer, instead of one for all.
"""


def can_exchange(pool: Any) -> bool:
    """
    Tell whether connections of *pool* take commands that were packed before.

    Assumes: a pool has ``connection_class``, with ``send_packed_command`` and ``read_response``.
    Seen on: redis-py 4.6 to 8.1.
    Lost: nothing but time: commands go through the client.
    """
    kind = getattr(pool, "connection_class", None)
    return hasattr(kind, "send_packed_command") and hasattr(kind, "read_response")


def exchange(connection: Any, packed: bytes) -> Any:
    """
    Send a command that was packed before, and return its answer: half of a round trip's time is the client's.

    Assumes: ``send_packed_command`` takes a list of bytes in RESP, and ``read_response`` returns one answer, of a connection that its pool handed out.
    Seen on: redis-py 4.6 to 8.1.
    Lost: as for `can_exchange`, which is asked before.
    """
    connection.send_packed_command([packed])
    return connection.read_response()
