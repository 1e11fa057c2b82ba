"""
The exporters beside ours: what rules and dashboards read of node_exporter and redis_exporter is on the pages of the real ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from celery_obs.rules.dashboards.third_party import MET_OUTSIDE
from celery_obs.vocabulary.spec import Metric
from tests.monitoring import NodeExporter, RedisExporter
from tests.servers import RedisServer


pytestmark = pytest.mark.integration

NODE = [metric for metric in MET_OUTSIDE.values() if metric.name.startswith("node_")]
REDIS = [metric for metric in MET_OUTSIDE.values() if metric.name.startswith("redis_")]


def by_name(page: bytes) -> dict[str, Family]:
    """
    Return the families on a page by the names of their samples.
    """
    return {sample.name: family for family in text_string_to_metric_families(page.decode()) for sample in family.samples}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Family]]:
    """
    What this machine's exporter shows.
    """
    with NodeExporter(tmp_path_factory.mktemp("node")) as exporter:
        yield by_name(exporter.get("/metrics"))


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Family]]:
    """
    What the exporter of a Redis shows.
    """
    with RedisServer() as server, RedisExporter(tmp_path_factory.mktemp("redis"), redis_url=server.url) as exporter:
        yield by_name(exporter.get("/metrics"))


def check(metric: Metric, page: dict[str, Family]) -> None:
    """
    Hold what we take a metric for against what is shown.
    """
    assert metric.name in page
    family = page[metric.name]
    assert metric.kind == family.type
    assert [] == [sample.labels for sample in family.samples if not set(metric.labels) <= sample.labels.keys()]


@pytest.mark.parametrize("metric", NODE, ids=lambda metric: metric.name)
def test_node_exporter_shows_what_we_read(node: dict[str, Family], metric: Metric) -> None:
    """
    Each name is on its page, of the kind and with the labels that queries use.
    """
    check(metric, node)


@pytest.mark.parametrize("metric", REDIS, ids=lambda metric: metric.name)
def test_redis_exporter_shows_what_we_read(redis: dict[str, Family], metric: Metric) -> None:
    """
    Each name is on its page, of the kind and with the labels that queries use.
    """
    check(metric, redis)


def test_both_exporters_are_read() -> None:
    """
    There is something to hold against them.
    """
    assert NODE
    assert REDIS
