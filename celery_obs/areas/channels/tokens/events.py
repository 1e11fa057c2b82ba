"""
Tokens: the OAuth tokens of connections, and how long they are valid.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from .metrics import RefreshStatus, Risk


__all__ = ["ENDINGS", "TokenAtRisk", "TokenRefreshEnded", "TokenRefreshStarted", "TokenRefreshed"]


class TokenRefreshStarted(NamedTuple):
    """
    A connection's token is about to be refreshed, by this process and in this thread.

    Attributes:
        channel_type: The channel.

        connection_id: The connection.
    """

    channel_type: str
    connection_id: str


class TokenRefreshEnded(NamedTuple):
    """
    What `TokenRefreshStarted` began is over, in the same thread, whatever came of it.  Not counted: `TokenRefreshed` is.

    Attributes:
        started: The event that opened it; the same object.

        status: How it went; *fresh* where the channel was not asked, and *abandoned* where it came to nothing that could be told.

        error: Class name of what went wrong; else empty.
    """

    started: TokenRefreshStarted
    status: RefreshStatus | Literal["fresh", "abandoned"]
    error: str


class TokenRefreshed(NamedTuple):
    """
    An attempt to refresh a connection's token reached its end.

    Attributes:
        channel_type: The channel.

        connection_id: The connection.

        status: How it went.

        duration: Seconds.

        error: Class name of what went wrong; else empty.  Never a word of the provider's answer, which may hold secrets.
    """

    channel_type: str
    connection_id: str
    status: RefreshStatus
    duration: float
    error: str


class TokenAtRisk(NamedTuple):
    """
    A channel gave a new token, and it is not safe where it belongs.

    Attributes:
        channel_type: The channel.

        connection_id: The connection.

        risk: What became of it.
    """

    channel_type: str
    connection_id: str
    risk: Risk


ENDINGS: Final = (TokenRefreshEnded,)
"""
Those that end what another one began, in the same thread.
"""
