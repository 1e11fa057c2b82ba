"""
Several Redis servers that stand in for each other, as kombu's failover lists have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import ConnectionPool
from redis.exceptions import ConnectionError as CannotConnect
from redis.exceptions import TimeoutError as TooLate


__all__ = ["FailoverPool"]


class FailoverPool(ConnectionPool):
    """
    Hands out connections of the server that answered last, and goes on to the next when that cannot be connected to.

    Args:
        pools: One for each server, in the order in which they are tried.

    Threads: safe; two that fail at once may both go on, and each tries all.  Forks: safe, for each server's own pool is.
    """

    def __init__(self, pools: Sequence[ConnectionPool]) -> None:
        super().__init__(connection_class=pools[0].connection_class, **pools[0].connection_kwargs)
        self.pools = tuple(pools)
        self._at = 0

    def get_connection(self, *args: Any, **options: Any) -> Any:
        """
        Connect, trying each server once.
        """
        first_failure: Exception | None = None
        for step in range(len(self.pools)):
            at = (self._at + step) % len(self.pools)
            try:
                connection: Any = self.pools[at].get_connection(*args, **options)
            except (CannotConnect, TooLate, OSError) as error:
                first_failure = first_failure or error
            else:
                self._at = at
                connection.celery_obs_pool = self.pools[at]
                return connection
        raise first_failure or CannotConnect

    def release(self, connection: Any) -> None:
        """
        Give a connection back to its server's pool.
        """
        connection.celery_obs_pool.release(connection)

    def make_connection(self) -> Any:
        """
        Make a connection that is not connected.
        """
        return self.pools[self._at].make_connection()

    def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 -- redis-py's.
        """
        Close the connections to all servers.
        """
        for pool in self.pools:
            pool.disconnect(inuse_connections)
