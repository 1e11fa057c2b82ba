"""
Webhooks, as programs import them.
"""

from __future__ import annotations

from celery_obs.areas.channels.webhooks.api import (
    BODY_LIMIT,
    SCHEMES,
    UNVERIFIED,
    BodyTooLargeError,
    EventBusyError,
    Hook,
    InvalidSignatureError,
    OnCommit,
    SignatureScheme,
    Signed,
    commits_of,
    webhook,
)


__all__ = [
    "BODY_LIMIT",
    "SCHEMES",
    "UNVERIFIED",
    "BodyTooLargeError",
    "EventBusyError",
    "Hook",
    "InvalidSignatureError",
    "OnCommit",
    "SignatureScheme",
    "Signed",
    "commits_of",
    "webhook",
]
