"""
API calls: calls to channels, and how they are answered.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from .metrics import ErrorType


__all__ = ["ApiCallFinished", "EndpointFolded"]


class ApiCallFinished(NamedTuple):
    """
    A call ended.

    Attributes:
        channel_type: The channel.

        endpoint: The route's template, such as ``/listings/{id}/calendar``; never a path with ids in it.

        method: In capitals.

        status_code: As text; :data:`NO_RESPONSE` without an answer.

        duration: Seconds until the answer's headers, or until it failed.

        error_type: Why it failed; empty for success.

        connection_id: Whose account; empty where unknown.
    """

    channel_type: str
    endpoint: str
    method: str
    status_code: str
    duration: float
    error_type: ErrorType | Literal[""]
    connection_id: str


class EndpointFolded(NamedTuple):
    """
    An endpoint was no template but a path with ids in it, and was made into one.

    Attributes:
        channel_type: The channel.
    """

    channel_type: str
