"""
The audit's stream in a real Redis.
"""

from __future__ import annotations

import pytest

from celery_obs.state import keys
from celery_obs.state.audit import KEPT, Audit
from celery_obs.state.connection import connect
from tests.servers import RedisServer
from tests.shared_state import audited


pytestmark = pytest.mark.integration


def test_the_stream_has_the_newest_and_an_end(redis_server: RedisServer) -> None:
    """
    Entries come back newest first, the stream is trimmed to about a thousand, and it goes by itself.
    """
    with connect(redis_server.url) as redis:
        audit = Audit(redis)
        for number in range(KEPT + 200):
            audit.write("pause", actor="a\udcff", reason=str(number), channel="airbnb")

        newest = audited(redis, 2)

        assert [str(KEPT + 199), str(KEPT + 198)] == [entry["reason"] for entry in newest]
        assert ("pause", "airbnb", "done", "a?") == tuple(newest[0][name] for name in ("action", "channel", "outcome", "actor"))
        assert KEPT <= redis.xlen(keys.AUDIT) < KEPT + 200
        assert 0 < redis.ttl(keys.AUDIT) <= 90 * 24 * 3600
