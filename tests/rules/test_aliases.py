"""
What dashboards and alerts of other systems ask, answered by our series under their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from celery_obs.generate.aliases import ALIASES, build
from celery_obs.generate.links import Links

from .promtool import run_tests


SYNC = 'channel_type="airbnb", sync_type="calendar"'

GIVEN = {
    f'channel_sync_total{{{SYNC}, direction="outbound", status="success", instance="a"}}': "0+60x60",
    f'channel_sync_total{{{SYNC}, direction="inbound", status="success", instance="a"}}': "0+60x60",
    f'channel_sync_total{{{SYNC}, direction="outbound", status="failure", instance="a"}}': "0+40x60",
    # An exporter that goes takes its series along; it must not look as if a counter had been started anew.
    f'channel_sync_total{{{SYNC}, direction="outbound", status="success", instance="gone"}}': "100000+60x20 stale",
    f'channel_sync_duration_seconds_bucket{{{SYNC}, le="1", instance="a"}}': "0+60x60",
    f'channel_sync_duration_seconds_bucket{{{SYNC}, le="2.5", instance="a"}}': "0+60x60",
    f'channel_sync_duration_seconds_bucket{{{SYNC}, le="+Inf", instance="a"}}': "0+60x60",
    f'channel_sync_in_progress{{{SYNC}, instance="a"}}': "2x60",
    'channel_api_errors_total{channel_type="airbnb", error_type="auth", instance="a"}': "0+60x60",
    'channel_api_errors_total{channel_type="airbnb", error_type="timeout", instance="a"}': "0+30x60",
    'channel_api_errors_total{channel_type="airbnb", error_type="network", instance="a"}': "0+30x60",
    'channel_api_errors_total{channel_type="airbnb", error_type="rate_limit", instance="a"}': "0+1x60",
    'channel_api_requests_total{channel_type="airbnb", endpoint="/a", method="GET", status_code="503", instance="a"}': "0+60x60",
    'channel_circuit_breaker_state{channel_type="airbnb", instance="a"}': "1x60",
    'celery_queue_depth{queue="sync", instance="a"}': "1200x60",
    'celery_task_finished_total{task="t", queue="q", state="success", instance="a", job="celery-obs"}': "0+60x60",
    'celery_task_failures_total{task="t", queue="q", exception="E", exhausted="true", instance="a", job="celery-obs"}': "0+30x60",
    'celery_task_failures_total{task="t", queue="q", exception="E", exhausted="false", instance="a", job="celery-obs"}': "0+30x60",
    'celery_task_runtime_seconds_bucket{task="t", queue="q", state="success", le="1", instance="a"}': "0+60x60",
    'celery_task_runtime_seconds_bucket{task="t", queue="q", state="failure", le="1", instance="a"}': "0+60x60",
    'celery_task_runtime_seconds_bucket{task="t", queue="q", state="success", le="+Inf", instance="a"}': "0+60x60",
    'celery_task_runtime_seconds_bucket{task="t", queue="q", state="failure", le="+Inf", instance="a"}': "0+60x60",
    'celery_worker_up{worker="w", instance="a"}': "1x60",
    'celery_worker_pool_busy{worker="w", instance="a"}': "3x60",
}

ASKED: dict[str, dict[str, tuple[str, float]]] = {
    "business-hub": {
        'sum by (source) (rate(sync_operations_total{status="error"}[5m]))': ('{source="airbnb"}', 40 / 60),
        "sum by (source, target) (rate(sync_operations_total[5m]))": ('{source="airbnb", target="calendar"}', 160 / 60),
        "histogram_quantile(0.95, sum by (le) (rate(sync_duration_seconds_bucket[5m])))": ("{}", 0.95),
        "sum by (source) (active_syncs)": ('{source="airbnb"}', 2),
    },
    "pms": {
        "sum by (platform) (rate(pms_sync_errors_total[5m])) / sum by (platform) (rate(pms_channel_api_requests_total[5m])) * 100": (
            '{platform="airbnb"}',
            100 * 121 / 60,
        ),
        'sum by (platform, status_code) (rate(pms_channel_api_requests_total{status_code=~"5.."}[5m]))': (
            '{platform="airbnb", status_code="503"}',
            1,
        ),
        "sum by (queue_name) (pms_celery_queue_depth) > 1000": ('{queue_name="sync"}', 1200),
        "count(pms_circuit_breaker_state == 1)": ("{}", 1),
    },
    "health-exchange": {
        'sum by (provider) (rate(ohe_provider_api_errors_total{error_type="auth_error"}[5m]))': ('{provider="airbnb"}', 1),
        'sum by (provider) (rate(ohe_provider_api_errors_total{error_type="network_error"}[5m]))': ('{provider="airbnb"}', 1),
        "sum by (provider) (increase(ohe_provider_api_rate_limits_total[5m]))": ('{provider="airbnb"}', 5),
        "sum(ohe_huey_queue_size) > 1000": ("{}", 1200),
    },
    "publishing": {"sum by (queue) (publishing_queue_depth)": ('{queue="sync"}', 1200)},
    "celery-exporter": {
        'sum by (name) (rate(celery_task_failed_total{job=~".*celery.*"}[5m])) / (sum by (name) (rate(celery_task_failed_total[5m])) + sum by (name) (rate(celery_task_succeeded_total[5m])))': (
            '{name="t"}',
            0.5,
        ),
        "histogram_quantile(0.5, sum by (name, le) (rate(celery_task_runtime_bucket[5m])))": ('{name="t"}', 0.5),
        'sum by (queue_name) (celery_queue_length{queue_name="sync"})': ('{queue_name="sync"}', 1200),
        "sum by (hostname) (celery_worker_tasks_active)": ('{hostname="w"}', 3),
    },
    "flower": {
        "sum by (worker) (flower_worker_online)": ('{worker="w"}', 1),
        "sum by (worker) (flower_worker_number_of_currently_executing_tasks)": ('{worker="w"}', 3),
        "histogram_quantile(0.5, sum by (task, le) (rate(flower_task_runtime_seconds_bucket[5m])))": ('{task="t"}', 0.5),
    },
}


@pytest.mark.parametrize("system", ALIASES)
def test_the_questions_of_another_system_are_answered(system: str, tmp_path: Path) -> None:
    """
    Its panels and alerts get the right numbers, also after an exporter has gone.
    """
    [rules] = [output.text for output in build(Links()) if output.path.endswith(f"/aliases-{system}.yml")]
    (tmp_path / "rules.yml").write_text(rules, encoding="utf-8")
    asked: list[Any] = [
        {
            "expr": f"round({query}, 0.0001)" if ">" not in query else query,
            "eval_time": "40m",
            "exp_samples": [{"labels": labels, "value": round(value, 4)}],
        }
        for query, (labels, value) in ASKED[system].items()
    ]
    test: dict[str, Any] = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in GIVEN.items()],
        "promql_expr_test": asked,
    }

    done = run_tests([tmp_path / "rules.yml"], [test], tmp_path)

    assert 0 == done.returncode, done.stdout + done.stderr
