"""
What can go wrong with a channel, as programs import it.
"""

from __future__ import annotations

from celery_obs.areas.channels.errors import (
    ApiError,
    ApiTimeoutError,
    AuthError,
    ChannelError,
    CircuitOpenError,
    HeldBackError,
    HeldBackTooLongError,
    LimitReachedError,
    NetworkError,
    RateLimitAnswer,
    RateLimitError,
    UnknownConnectionError,
    ValidationError,
    classify,
    classify_status,
    describe,
    header,
    held_back,
    is_retryable,
    rate_limit_answer,
    rate_limit_of,
    register_client_error,
    retry_after,
    seconds_of,
    status_of,
)


__all__ = [
    "ApiError",
    "ApiTimeoutError",
    "AuthError",
    "ChannelError",
    "CircuitOpenError",
    "HeldBackError",
    "HeldBackTooLongError",
    "LimitReachedError",
    "NetworkError",
    "RateLimitAnswer",
    "RateLimitError",
    "UnknownConnectionError",
    "ValidationError",
    "classify",
    "classify_status",
    "describe",
    "header",
    "held_back",
    "is_retryable",
    "rate_limit_answer",
    "rate_limit_of",
    "register_client_error",
    "retry_after",
    "seconds_of",
    "status_of",
]
