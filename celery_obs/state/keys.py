"""
The names of our keys in Redis, each with what it holds and who removes it.

People type three of them, so these are spelled as their documents say: the breaker's, the pause's and the rate limit's.
All others begin with ``celery_obs:``.  No operation of ours touches two keys in one script or transaction, so that Redis Cluster works.
"""

from __future__ import annotations

import hashlib
import re

from typing import Final


__all__ = [
    "AUDIT",
    "BREAKERS",
    "CHANNELS",
    "CONNECTIONS",
    "DRIFT",
    "ERRORS",
    "LAST_RUNS",
    "LAST_SYNCS",
    "LEASE",
    "LIMITED",
    "LIMITS",
    "MISSING",
    "PENDING",
    "PUBLISHED",
    "QUEUES",
    "QUEUES_TTL",
    "RATE_LIMITS",
    "REFRESHING",
    "REVIEWS",
    "SCOPES",
    "STATUSES",
    "TOKEN_EXPIRIES",
    "URL_PARAMETERS",
    "breaker",
    "limits",
    "lock",
    "newest",
    "once",
    "parked_token",
    "part",
    "paused",
    "rate_limit",
    "token",
    "turns",
    "waiting",
]


QUEUES: Final = "celery_obs:queues"
"""
A hash: queue name to announcement.  Workers write it for as long as they consume, and take out at an orderly stop what lives no longer than
they do; what was not written for :data:`QUEUES_TTL` is taken out by the next worker, and the whole goes by itself.
"""

PUBLISHED: Final = "celery_obs:queues:published"
"""
A hash as :data:`QUEUES`: what publishers know of the queues that they publish to.  It goes as that does.
"""

QUEUES_TTL: Final = 30 * 24 * 3600
"""
Seconds for which the announced queues outlive the last worker.
"""

CHANNELS: Final = "celery_obs:channels"
"""
A sorted set: every channel that was used, scored by when, in seconds since the epoch.  The sweep removes those unused for long.
"""

CONNECTIONS: Final = "celery_obs:connections"
"""
A hash: connection id to JSON of what does not change, ``{"channel_type", "created_at"}``.  Its owner is `facts.Facts.forget` and the sweep.
"""

MISSING: Final = "celery_obs:connections:missing"
"""
A hash: connection id to the time since which it is gone, though something is known of it.  The census and the sweep write it, and remove
its fields when the connection is back or its grace period is over.
"""

STATUSES: Final = "celery_obs:connections:status"
"""
A hash: connection id to ``active``, ``paused``, ``error`` or ``disconnected``.  Owned as :data:`CONNECTIONS`.
"""

LAST_SYNCS: Final = "celery_obs:connections:last_sync"
"""
A hash: connection id to the time of its last successful sync.  Owned as :data:`CONNECTIONS`.
"""

ERRORS: Final = "celery_obs:connections:errors"
"""
A hash: connection id to how many syncs failed in a row.  Owned as :data:`CONNECTIONS`.
"""

TOKEN_EXPIRIES: Final = "celery_obs:tokens:expiry"  # noqa: S105 -- a key of Redis, no password.
"""
A hash: connection id to JSON ``{"expires_at", "lifetime"}``, no secret in it.  Owned as :data:`CONNECTIONS`.
"""

REFRESHING: Final = "celery_obs:tokens:refreshing"
"""
A hash: connection id to the time at which a refresh of its token began that has not ended.  What is left here long after has died in the
middle of it; the next scan finds it.  Owned as :data:`CONNECTIONS`.
"""

URL_PARAMETERS: Final = "celery_obs:connections:url_parameters"
"""
A hash: connection id to JSON of what is filled into the token URL of its channel, such as ``{"shop": "acme"}``.  Owned as :data:`CONNECTIONS`.
"""

DRIFT: Final = "celery_obs:reconciliation:drift"
"""
A hash: connection id to JSON ``{"days", "checked", "at"}`` of its last check.  Owned as :data:`CONNECTIONS`.
"""

PENDING: Final = "celery_obs:reconciliation:pending"
"""
A hash: connection id to JSON of what its last check left to be settled, for as long as it drifts.  Owned as :data:`CONNECTIONS`.
"""

LAST_RUNS: Final = "celery_obs:reconciliation:last_run"
"""
A hash: channel to the time at which one of its connections was last checked.  Owned as :data:`CHANNELS`.
"""

REVIEWS: Final = "celery_obs:conflicts:review"
"""
A hash: type of conflict to how many of them wait for a person.  A field at 0 is removed.
"""

BREAKERS: Final = "celery_obs:breakers"
"""
A hash: channel to JSON of its breaker as the export task last saw it.  It goes by itself some minutes after the last export.
"""

RATE_LIMITS: Final = "celery_obs:rate_limits"
"""
A hash: JSON ``[channel, connection]`` to JSON ``{"count", "max", "at"}``, as the export task last saw it.  Goes as :data:`BREAKERS`.
"""

LIMITED: Final = "celery_obs:rate_limits:used"
"""
A sorted set: JSON ``[channel, connection]`` of what asked its rate limit of late, scored by when.  The export task removes what did not for an hour.
"""

LIMITS: Final = "celery_obs:rate_limits:policies"
"""
A hash: channel, or ``*``, to JSON of its rate limits as its callers are configured, for those who have not their settings.  It goes by itself an
hour after the last call.
"""

LEASE: Final = "celery_obs:lease"
"""
Who serves the cluster's state: a lock with a short TTL, renewed by its holder.
"""

AUDIT: Final = "celery_obs:audit"
"""
A stream: what operators did, newest last; trimmed to about a thousand entries, and gone 90 days after the last.
"""


SCOPES: Final = "celery_obs:breakers:scopes"
"""
A sorted set: JSON ``[channel, scope]`` of the breakers of endpoints and connections that are not closed, scored by when they opened.  Who closes one
removes it; it goes by itself with the breakers.
"""


def breaker(channel: str, scope: str = "") -> str:
    """
    Return the hash that holds a channel's whole breaker, or that of one of its endpoints or connections.  It expires when nothing happened for a
    week; deleted, the breaker is closed.
    """
    return f"circuit_breaker:{part(channel)}:{part(scope)}:state" if scope else f"circuit_breaker:{part(channel)}:state"


def paused(channel: str) -> str:
    """
    Return the key whose existence pauses a channel, whatever it holds.  It has the TTL that was given with the pause.
    """
    return f"channel_manager:{part(channel)}:paused"


def rate_limit(channel: str, connection: str = "") -> str:
    """
    Return the list of the times of a connection's last calls, or of the whole channel's.  It expires with the longest window.
    """
    return f"rate_limit:{part(channel)}:{_connection_part(connection)}"


def limits(of: str) -> str:
    """
    Return the hash beside the list *of* calls, in the same slot of a Redis Cluster: how full its leaky buckets are, and what the channel said of its
    limits.  It expires with the last of them.
    """
    return f"celery_obs:limits:{{{of}}}"


def turns(line: str) -> str:
    """
    Return the key that holds the last turn that was given out in a line of tasks that come again; it expires with that turn.
    """
    return f"celery_obs:turns:{part(line)}"


def token(connection: str) -> str:
    """
    Return the hash that holds a connection's encrypted token.  Owned as :data:`CONNECTIONS`.
    """
    return f"celery_obs:token:{part(connection)}"


def parked_token(connection: str) -> str:
    """
    Return the hash that holds an encrypted token which could not be stored where the application keeps them.  Owned as :data:`CONNECTIONS`.
    """
    return f"celery_obs:parked_token:{part(connection)}"


def lock(name: str) -> str:
    """
    Return the key of a lock; it has a TTL.
    """
    return f"celery_obs:lock:{part(name)}"


def once(kind: str, name: str) -> str:
    """
    Return the key that remembers that something happened, so that it does not happen twice; it has a TTL.
    """
    return f"celery_obs:once:{part(kind)}:{part(name)}"


def newest(kind: str, name: str) -> str:
    """
    Return the hash that says when the newest thing that was done happened to an object, and who works on it now; it has a TTL.
    """
    return f"celery_obs:newest:{part(kind)}:{part(name)}"


def written(writer: str) -> str:
    """
    Return the key with the number of the last batch of failed syncs that *writer* wrote; it has a TTL, and lies where :data:`ERRORS` does.
    """
    return f"celery_obs:once:written:{{{ERRORS}}}:{part(writer)}"


def waiting(task: str) -> str:
    """
    Return the key that says that a message of this periodic task of ours waits for a worker.  The worker that takes it removes the key; it has a TTL.
    """
    return f"celery_obs:waiting:{part(task)}"


_PLAIN: Final = re.compile(r"[A-Za-z0-9_.@+-]{1,128}")


def part(name: str) -> str:
    """
    Return *name* as it stands in a key: as it is where it is plain and short, else its hash, so that no user's text shapes our keys.
    """
    return name if _PLAIN.fullmatch(name) else _hashed(name)


def _hashed(name: str) -> str:
    return "sha256-" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _connection_part(connection: str) -> str:
    # A connection may be called as the whole channel is here.
    return "all" if not connection else _hashed(connection) if connection == "all" else part(connection)
