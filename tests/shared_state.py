"""
What tests put into the shared state of channels, and read there, in the place of those who do so in production.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from redis import Redis

from celery_obs.areas.channels.connections.fact_writer import ConnectionFactWriter
from celery_obs.state import keys
from celery_obs.state.scripts import text


__all__ = ["audited", "write_syncs"]


def write_syncs(redis: Redis, *, succeeded: Mapping[str, float] | None = None, failed: Mapping[str, int] | None = None) -> None:
    """
    Write, as workers do, when syncs of connections last succeeded, and then how often they failed.
    """
    writer = ConnectionFactWriter(redis, on_drop=lambda: pytest.fail("A fact was given up."))
    for name, at in (succeeded or {}).items():
        writer.synced(name, at=at)
    for name, times in (failed or {}).items():
        for _ in range(times):
            writer.errored(name)
    assert writer.flush(within=5)


def audited(redis: Redis, count: int = 20) -> list[Mapping[str, str]]:
    """
    Return the last entries of the audit, newest first, as the how-to reads them.
    """
    entries = redis.xrevrange(keys.AUDIT, count=count)
    return [{text(name): text(value) for name, value in fields.items()} for _, fields in entries]  # type: ignore[union-attr]  # The stubs' client may be asynchronous.
