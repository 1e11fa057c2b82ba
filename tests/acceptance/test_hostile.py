"""
Input that means no good, end to end: a clear error or a folded label, no growth, and nothing lost.
"""

from __future__ import annotations

import json
import sys

import pytest

from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from celery_obs.areas.channels.connections.state import Facts
from celery_obs.demo.provider import Provider
from tests.servers import wait_until
from tests.workers import Metrics

from .conftest import Stage


pytestmark = pytest.mark.integration

LIMIT = 50
QUOTED = 'it\'s "quoted"'
MANY = 10_000


def meet(stage: Stage, what: str, **environ: str) -> dict[str, int]:
    """
    Run the hostile program, and return what it saw.
    """
    code, said = stage.run(sys.executable, "-m", "hostile", what, name=what, CELERY_OBS_REDIS_URL=stage.redis.url, **environ)
    assert 0 == code, said
    return dict(json.loads(said.splitlines()[-1]))


def size_of(stage: Stage) -> int:
    """
    Return the bytes of all metric files.
    """
    return sum(path.stat().st_size for path in stage.metrics_dir.rglob("*") if path.is_file())


def keys_in(stage: Stage) -> int:
    """
    Return how many keys and fields the state in Redis has.
    """
    with Redis.from_url(stage.redis.url) as redis:
        members = {b"hash": redis.hlen, b"zset": redis.zcard}
        return sum(members.get(redis.type(key), lambda _: 1)(key) for key in redis.scan_iter("*"))


def test_ten_thousand_channels_are_fifty_and_the_rest(stage: Stage) -> None:
    """
    Each sync and each webhook is counted, and the page stays a page.
    """
    meet(stage, "channels")
    metrics = Metrics(stage.metrics_dir)

    assert MANY == metrics.find("channel_sync_total", status="success")
    assert MANY == metrics.find("channel_sync_records_total", result="updated")
    assert MANY == metrics.find("channel_webhook_received_total")
    assert MANY - LIMIT == metrics.find("channel_sync_total", channel_type="_other", status="success")
    assert len(metrics.by("channel_type", "channel_sync_total")) == LIMIT + 1
    assert 0 < (metrics.find("celery_obs_labels_folded_total", metric="channel_sync_total") or 0)
    assert size_of(stage) < 8_000_000
    assert len(metrics.text()) < 2_000_000


def test_ten_thousand_endpoints_are_a_few(stage: Stage) -> None:
    """
    Each call is counted, under a template or with the rest.
    """
    meet(stage, "endpoints")
    metrics = Metrics(stage.metrics_dir)

    assert MANY == metrics.find("channel_api_requests_total", channel_type="airbnb", method="GET", status_code="200")
    assert len(metrics.by("endpoint", "channel_api_requests_total")) <= LIMIT + 1
    assert size_of(stage) < 8_000_000


def test_an_id_may_be_any_text(stage: Stage) -> None:
    """
    Quotes, newlines, ten kilobytes: the work is done, the page can be read, and what Redis holds has not grown by more than the accounts.
    """
    seen = meet(stage, "ids")
    page = stage.exporter(f"--redis-url={stage.redis.url}", "--scope=all")

    # One is empty, and one is no text at all.
    assert {"refused": 2, "synced": 7} == seen
    metrics = Metrics(stage.metrics_dir)
    assert 14 == metrics.find("channel_sync_records_total", result="created")
    with Redis.from_url(stage.redis.url) as redis:
        wait_until(lambda: Facts(redis).snapshot().last_syncs, what="the syncs to be noted")

    def shown() -> set[str]:
        families = {family.name: family for family in text_string_to_metric_families(page.text())}
        found = families.get("channel_connection_last_sync_timestamp")
        return set() if found is None else {sample.labels["connection_id"] for sample in found.samples}

    wait_until(lambda: len(shown()) > 2, within=20, what="the page to show the accounts")
    assert QUOTED in shown()
    assert all(len(name) < 300 for name in shown())
    assert keys_in(stage) < 200


def test_a_provider_that_answers_nonsense_is_an_error_with_a_name(stage: Stage) -> None:
    """
    Neither a page instead of data nor an answer without an end holds anything up; each failure is a failed sync.
    """
    with Provider() as provider:
        seen = meet(stage, "provider", TEST_PROVIDER=provider.url)

    metrics = Metrics(stage.metrics_dir)
    assert {
        "html:JSONDecodeError": 1,
        "endless:OverflowError": 1,
        "redirect:TooManyRedirects": 1,
        "drop:RemoteProtocolError": 1,
        "outage:HTTPStatusError": 1,
        "rate_limit:HTTPStatusError": 1,
        "slow:ReadTimeout": 1,
    } == seen
    assert 7 == metrics.find("channel_sync_total", status="failure")
    assert {"network": 1, "server_error": 1, "rate_limit": 1, "timeout": 1} == metrics.by("error_type", "channel_api_errors_total")
    assert len(metrics.by("endpoint", "channel_api_requests_total")) < 10
