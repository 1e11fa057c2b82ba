"""
What users count with prometheus_client's own multiprocess mode, served beside our metrics by the same sidecar.
"""

from __future__ import annotations

import pytest

from tests.workers import settle_at

from .conftest import Stage


pytestmark = pytest.mark.integration

TIMES = 6


def test_a_stock_multiprocess_directory_is_served_beside_ours(stage: Stage) -> None:
    """
    Counters, gauges and histograms of the app's own appear with ours, add up over processes, and survive a recycled child.
    """
    stock = stage.folder / "stock"
    stock.mkdir()
    stage.worker("--max-tasks-per-child=3", app="stocktaking", PROMETHEUS_MULTIPROC_DIR=str(stock))
    page = stage.exporter(f"--broker-url={stage.redis.url}", f"--multiproc-dir={stock}")

    for _ in range(TIMES):
        stage.client.send_task("stocktaking.ship", args=("books",))

    settle_at(TIMES, lambda: page.find("shipped_total", what="books"))
    settle_at(TIMES, lambda: page.find("celery_task_finished_total", task="stocktaking.ship", state="success"))
    assert TIMES == page.find("parcel_weight_kilograms_count")
    assert TIMES * 2.5 == page.find("parcel_weight_kilograms_sum")
    assert 1 == page.find("celery_obs_collector_success", collector="multiproc")
    assert page.find("celery_obs_internal_errors_total") is None
