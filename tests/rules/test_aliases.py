"""
What dashboards and alerts of other systems ask, answered by our series under their names.
"""

from __future__ import annotations

import itertools

from pathlib import Path
from typing import Any

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st

from celery_obs.rules.links import Links
from celery_obs.rules.packs.aliases import ABSENT, ALIASES, build
from celery_obs.rules.rules import Group, rule_file

from .promtool import run_tests


SYNC = 'channel_type="airbnb", sync_type="calendar"'

TARGET = 'instance="host-1:19540", job="celery-obs", namespace="shop"'

F1, F3, G = (f'instance="{host}:19540", job="celery-obs"' for host in ("f-1", "f-3", "g"))

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
    # Scraped with the labels of celery-exporter on what has the same name there.
    f'celery_worker_up{{worker="w2", hostname="w2", {TARGET}}}': "1x60",
    f'celery_worker_up{{worker="w3", hostname="w3", {TARGET}}}': "0x60",
    f'celery_worker_pool_size{{worker="w2", {TARGET}}}': "4x60",
    f'celery_worker_pool_size{{worker="w3", {TARGET}}}': "4x60",
    f'celery_task_received_total{{task="t", queue="q", name="t", queue_name="q", hostname="host-1", {TARGET}}}': "0+60x60",
    f'celery_task_received_total{{task="u", queue="q", name="u", queue_name="q", hostname="host-1", {TARGET}}}': "0+60x60",
    f'celery_task_published_total{{task="t", queue="q", {TARGET}}}': "0+120x60",
    f'celery_task_retries_total{{task="t", queue="q", reason="E", {TARGET}}}': "0+30x60",
    f'celery_task_retries_total{{task="t", queue="q", reason="F", {TARGET}}}': "0+30x60",
    f'celery_task_finished_total{{task="t", queue="q", state="revoked", {TARGET}}}': "0+30x60",
    f'celery_task_finished_total{{task="t", queue="q", state="rejected", {TARGET}}}': "0+15x60",
    f'celery_task_queue_wait_seconds_bucket{{task="t", queue="q", le="5", {TARGET}}}': "0+60x60",
    f'celery_task_queue_wait_seconds_bucket{{task="t", queue="q", le="+Inf", {TARGET}}}': "0+60x60",
    'channel_sync_records_total{channel_type="airbnb", sync_type="calendar", result="created", instance="a"}': "0+60x60",
    'channel_webhook_received_total{channel_type="airbnb", event_type="booking", instance="a"}': "0+30x60",
    'channel_webhook_received_total{channel_type="airbnb", event_type="cancel", instance="a"}': "0+30x60",
    'channel_circuit_breaker_transitions_total{channel_type="airbnb", from_state="closed", to_state="open", instance="a"}': "0+1x60",
    'channel_double_bookings_detected_total{channel_type="airbnb", instance="a"}': "0x30 1x30",
    'channel_api_errors_total{channel_type="airbnb", error_type="circuit_breaker", instance="a"}': "0+30x60",
    'http_request_duration_seconds_bucket{method="GET", endpoint="/", le="0.2", instance="a"}': "0+60x60",
    'http_request_duration_seconds_bucket{method="GET", endpoint="/", le="+Inf", instance="a"}': "0+60x60",
}

FLOWER = {
    # One worker beside its exporter, one that is down, and two that share a directory.
    f'celery_worker_up{{worker="f1", {F1}}}': "1x60",
    f'celery_worker_up{{worker="f3", {F3}}}': "0x60",
    f'celery_worker_up{{worker="g1", {G}}}': "1x60",
    f'celery_worker_up{{worker="g2", {G}}}': "1x60",
    f'celery_task_published_total{{task="f", queue="q", {F1}}}': "0+110x60",
    **{
        f'celery_task_finished_total{{task="f", queue="{queue}", state="{state}", {F1}}}': f"0+{each}x60"
        for queue in ("q", "r")
        for state, each in {"success": 30, "failure": 20, "timeout": 2, "retry": 10, "revoked": 4, "rejected": 7, "ignored": 8}.items()
    },
    f'celery_task_finished_total{{task="f", queue="q", state="lost", {F1}}}': "0+1x60",
    f'celery_task_finished_total{{task="f", queue="q", state="terminated", {F1}}}': "0+1x60",
    f'celery_task_runtime_seconds_sum{{task="f", queue="q", state="success", {F1}}}': "0+30x60",
    f'celery_task_runtime_seconds_count{{task="f", queue="q", state="success", {F1}}}': "0+60x60",
    f'celery_task_runtime_seconds_sum{{task="f", queue="q", state="failure", {F1}}}': "0+900x60",
    f'celery_task_runtime_seconds_count{{task="f", queue="q", state="failure", {F1}}}': "0+9x60",
    f'celery_task_finished_total{{task="f", queue="q", state="success", {F3}}}': "0+10x60",
    f'celery_task_finished_total{{task="g", queue="q", state="success", {G}}}': "0+7x60",
}
"""
What is given besides where Flower's names are asked for: numbers by worker.
"""

ASKED: dict[str, dict[str, tuple[str, float]]] = {
    "business-hub": {
        'sum by (source) (rate(sync_operations_total{status="error"}[5m]))': ('{source="airbnb"}', 40 / 60),
        "sum by (source, target) (rate(sync_operations_total[5m]))": ('{source="airbnb", target="calendar"}', 160 / 60),
        "histogram_quantile(0.95, sum by (le) (rate(sync_duration_seconds_bucket[5m])))": ("{}", 0.95),
        "sum by (source) (active_syncs)": ('{source="airbnb"}', 2),
        # Their alerts and sample dashboard; a ratio where theirs has a rate, and with their buckets.
        'sum by (source, target) (rate(sync_operations_total{status="error"}[5m])) / sum by (source, target) (rate(sync_operations_total[5m]))': (
            '{source="airbnb", target="calendar"}',
            0.25,
        ),
        "histogram_quantile(0.95, sum by (source, target, le) (rate(sync_duration_seconds_bucket[5m])))": (
            '{source="airbnb", target="calendar"}',
            0.95,
        ),
        "histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))": ("{}", 0.19),
    },
    "pms": {
        "sum by (platform) (rate(pms_sync_errors_total[5m])) / sum by (platform) (rate(pms_channel_api_requests_total[5m])) * 100": (
            '{platform="airbnb"}',
            100 * 151 / 60,
        ),
        "histogram_quantile(0.99, sum by (platform, le) (rate(pms_sync_latency_seconds_bucket[5m])))": ('{platform="airbnb"}', 0.99),
        "max by (queue_name) (pms_celery_queue_depth)": ('{queue_name="sync"}', 1200),
        "sum(increase(pms_double_booking_detected_total[15m])) > bool 0": ("{}", 1),
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
        'sum by (provider) (rate(ohe_sync_operations_total{status="success"}[5m])) / sum by (provider) (rate(ohe_sync_operations_total[5m])) * 100': (
            '{provider="airbnb"}',
            75,
        ),
        'sum by (provider) (increase(ohe_provider_api_errors_total{error_type="circuit_breaker"}[30m]))': ('{provider="airbnb"}', 900),
        "topk(1, sum by (error_type) (increase(ohe_provider_api_errors_total{error_type!='auth_error'}[10m])))": (
            '{error_type="network_error"}',
            600,
        ),
        'max by (breaker) (ohe_circuit_breaker_state{state="open"}) == 1': ('{breaker="airbnb"}', 1),
        'sum(ohe_circuit_breaker_state{state=~"closed|half_open"})': ("{}", 0),
        'sum by (breaker) (increase(ohe_circuit_breaker_transitions_total{from="closed", to="open"}[10m]))': ('{breaker="airbnb"}', 10),
        "histogram_quantile(0.95, sum by (provider, le) (rate(ohe_sync_duration_seconds_bucket[5m])))": ('{provider="airbnb"}', 0.95),
        "sum by (provider, type) (rate(ohe_data_points_processed_total[5m]))": ('{provider="airbnb", type="calendar"}', 1),
        "sum by (provider) (rate(ohe_webhook_requests_total[5m]))": ('{provider="airbnb"}', 1),
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
        "sum by (job, namespace, queue_name, name, hostname) (rate(celery_task_sent_total[5m]))": (
            '{hostname="host-1", job="celery-obs", name="t", namespace="shop", queue_name="q"}',
            2,
        ),
        "sum by (name) (increase(celery_task_retried_total[10m]))": ('{name="t"}', 600),
        "sum by (name) (increase(celery_task_revoked_total[10m]))": ('{name="t"}', 300),
        "sum by (name) (increase(celery_task_rejected_total[10m]))": ('{name="t"}', 150),
        "sum by (exception) (increase(celery_task_failed_total[10m]))": ('{exception="E"}', 600),
        "histogram_quantile(0.5, sum by (name, le) (rate(celery_task_queue_wait_time_bucket[5m])))": ('{name="t"}', 2.5),
        "sum by (queue_name, namespace) (celery_active_worker_count)": ('{namespace="shop", queue_name="q"}', 1),
        "sum by (queue_name, namespace) (celery_active_process_count)": ('{namespace="shop", queue_name="q"}', 4),
    },
    "flower": {
        'sum by (worker) (flower_worker_online{worker="w2"})': ('{worker="w2"}', 1),
        "sum by (worker) (flower_worker_number_of_currently_executing_tasks)": ('{worker="w"}', 3),
        "histogram_quantile(0.5, sum by (task, le) (rate(flower_task_runtime_seconds_bucket[5m])))": ('{task="t"}', 0.5),
        # What its example dashboard and alerts ask, of a target with one worker.
        'count(flower_worker_online{worker=~"f.+"} == 0) or vector(0)': ("{}", 1),
        'sum by (worker) (increase(flower_events_total{worker=~"f1", task=~".+", type="task-failed"}[5m]))': ('{worker="f1"}', 5 * 45),
        'sum by (worker) (increase(flower_events_total{worker=~"f1", type=~"task-(succeeded|failed)"}[5m]))': ('{worker="f1"}', 5 * 105),
        'sum by (worker) (increase(flower_events_total{worker="f1", type="task-retried"}[5m]))': ('{worker="f1"}', 5 * 20),
        'sum by (worker) (increase(flower_events_total{worker="f1", type="task-revoked"}[5m]))': ('{worker="f1"}', 5 * 9),
        'sum by (worker) (rate(flower_task_runtime_seconds_sum{worker="f1"}[5m])) / sum by (worker) (rate(flower_task_runtime_seconds_count{worker="f1"}[5m]))': (
            '{worker="f1"}',
            0.5,
        ),
        # A worker that is down still has its name and its numbers.
        'sum by (worker, task) (increase(flower_events_total{worker="f3", type="task-succeeded"}[5m]))': ('{task="f", worker="f3"}', 50),
        # Of a target with two workers the totals are right, and which of them it was is not told.
        'sum by (worker, task) (increase(flower_events_total{type="task-succeeded", task="g"}[5m]))': ('{task="g"}', 35),
        'sum by (task) (increase(flower_events_total{type="task-sent", task="f"}[5m]))': ('{task="f"}', 5 * 110),
        'round((sum(avg_over_time(flower_events_total{type="task-failed", task="f"}[15m])) by (task) / sum(avg_over_time(flower_events_total{type=~"task-failed|task-succeeded", task="f"}[15m])) by (task)) * 100, 0.0001) > 1': (
            '{task="f"}',
            100 * 45 / 115,
        ),
    },
}


# Dashboards that have our names: their panels, one by one, then their objectives.  Ratios and quantiles have their labels, a status that has
# not occurred counts as 0, and a channel is counted once, however many exporters show it.
ASKED_BY_THE_PLAN: dict[str, tuple[str, float]] = {
    "sum(channel_connections_total{status='active'})": ("{}", 7),
    "100 * sum(rate(channel_sync_total{status='success'}[24h])) / sum(rate(channel_sync_total[24h]))": ("{}", 75),
    "sum by (channel_type) (rate(channel_sync_total[5m]))": ('{channel_type="airbnb"}', 160 / 60),
    "histogram_quantile(0.95, sum by (channel_type, le) (rate(channel_sync_duration_seconds_bucket[5m])))": (
        '{channel_type="airbnb"}',
        0.95,
    ),
    "sum(max by (channel_type) (channel_circuit_breaker_state == bool 1))": ("{}", 1),
    "sum(rate(channel_sync_duration_seconds_bucket{le='1'}[5m])) / sum(rate(channel_sync_duration_seconds_bucket{le='+Inf'}[5m]))": (
        "{}",
        1,
    ),
    "sum(rate(channel_webhook_processed_total{status=~'success|duplicate'}[5m])) / sum(rate(channel_webhook_processed_total[5m]))": (
        "{}",
        0.9,
    ),
}


def test_the_panels_of_the_plan_are_answered_without_aliases(tmp_path: Path) -> None:
    """
    What such a dashboard asks for is there under its own names.
    """
    given = {name: values for name, values in GIVEN.items() if name.startswith("channel_") and 'instance="gone"' not in name} | {
        'channel_connections_total{channel_type="airbnb", status="active"}': "7x60",
        'channel_webhook_processed_total{channel_type="airbnb", status="success"}': "0+54x60",
        'channel_webhook_processed_total{channel_type="airbnb", status="error"}': "0+6x60",
        'channel_circuit_breaker_state{channel_type="airbnb", instance="b"}': "1x60",
    }
    (tmp_path / "rules.yml").write_text("groups: []\n", encoding="utf-8")

    done = run_tests([tmp_path / "rules.yml"], [asking(given, ASKED_BY_THE_PLAN)], tmp_path)

    assert 0 == done.returncode, done.stdout + done.stderr


def asking(given: dict[str, str], asked: dict[str, tuple[str, float]]) -> dict[str, Any]:
    """
    Write as promtool reads it what is *given*, and what *asked* expects after 40 minutes.
    """
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in given.items()],
        "promql_expr_test": [
            {
                "expr": f"round({query}, 0.0001)" if ">" not in query else query,
                "eval_time": "40m",
                "exp_samples": [{"labels": labels, "value": round(value, 4)}],
            }
            for query, (labels, value) in asked.items()
        ],
    }


@pytest.mark.parametrize("system", ALIASES)
def test_the_questions_of_another_system_are_answered(system: str, tmp_path: Path) -> None:
    """
    Its panels and alerts get the right numbers, also after an exporter has gone.
    """
    [rules] = [output.text for output in build(Links()) if output.path.endswith(f"/aliases-{system}.yml")]
    (tmp_path / "rules.yml").write_text(rules, encoding="utf-8")
    done = run_tests([tmp_path / "rules.yml"], [asking({**GIVEN, **FLOWER} if system == "flower" else GIVEN, ASKED[system])], tmp_path)

    assert 0 == done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(("system", "absent"), ABSENT.items())
def test_what_is_absent_is_listed_with_its_reason(system: str, absent: dict[str, str]) -> None:
    """
    The page names each alias, and each name that has none together with why; nothing is in both lists.
    """
    [page] = [output.text for output in build(Links()) if output.path == "docs/reference/migration.md"]
    names = {record.name for alias in ALIASES[system] for record in alias.records()}

    assert all(f"- `{name}`" in page for name in names)
    assert all(f"{name}`: {reason}." in page.replace("``", "`") or f"{name}: {reason}." in page for name, reason in absent.items())
    assert names.isdisjoint(absent)


def course(draw: st.DrawFn, minutes: int) -> list[int]:
    """
    Draw how a counter goes on, minute by minute.
    """
    steps = draw(st.lists(st.integers(0, 50), min_size=minutes, max_size=minutes))
    return list(itertools.accumulate(steps))


@st.composite
def fleets(draw: st.DrawFn) -> dict[str, list[str]]:
    """
    Draw two exporters, each with tasks that fail for good or not, which begins anew at some minute or never.
    """
    series = {}
    for instance in ("a", "b"):
        restart = draw(st.integers(5, 55) | st.none())
        for exhausted in ("true", "false"):
            whole = course(draw, 60)
            if restart is not None:
                whole = whole[:restart] + course(draw, 60 - restart)
            name = f'celery_task_failures_total{{task="t", queue="q", exception="E", exhausted="{exhausted}", instance="{instance}", job="celery-obs"}}'
            series[name] = [str(value) for value in whole]
    return series


@given(st.lists(fleets(), min_size=4, max_size=4))
@settings(max_examples=4, deadline=None)
def test_the_rate_of_an_alias_is_the_rate_of_what_it_stands_for(rules: Path, fleets: list[dict[str, list[str]]]) -> None:
    """
    A recorded counter falls when, and only when, its exporter begins anew, so its rate counts everything once.
    """
    ours = "sum(rate(celery_task_failures_total[10m]))"
    theirs = "sum(rate(celery_task_failed_total[10m]))"
    # Where a range ends between two samples, each of the series is extended by itself.
    same = f"abs({theirs} - {ours}) <= bool 0.05 * {ours} + 0.0001"
    tests: list[Any] = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": " ".join(values)} for name, values in series.items()],
            "promql_expr_test": [
                {"expr": same, "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": 1}]} for minute in range(15, 60, 5)
            ],
        }
        for series in fleets
    ]

    done = run_tests([rules], tests, rules.parent)

    assert 0 == done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The alias of one counter, alone.
    """
    [alias] = [alias for alias in ALIASES["celery-exporter"] if alias.name == "celery_task_failed_total"]
    path = tmp_path_factory.mktemp("aliases") / "rules.yml"
    path.write_text(rule_file("here", [Group(name="g", comment="", rules=tuple(alias.records()))], Links()), encoding="utf-8")
    return path
