"""
Connections: the accounts that are synchronised, and their state.
"""

from __future__ import annotations

from typing import NamedTuple


__all__ = ["ConnectionErrored"]


class ConnectionErrored(NamedTuple):
    """
    Something failed for a connection: a sync, a refresh, a reconciliation.

    Attributes:
        channel_type: The channel.

        connection_id: The connection.
    """

    channel_type: str
    connection_id: str
