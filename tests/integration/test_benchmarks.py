"""
The benchmarks run: what they measure is their own business, and no test depends on how long anything takes.
"""

from __future__ import annotations

import json
import subprocess
import sys

from pathlib import Path

import pytest

from tests.conftest import NeedServer


pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "name", ["circuit_breaker", "errors", "hooks", "logs", "publish", "scrape", "history", "traces", "fork", "sync_run", "reconciliation"]
)
def test_a_quick_run_prints_a_table_and_writes_its_numbers(name: str, tmp_path: Path) -> None:
    """
    Each benchmark that needs no server can be tried in a second.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--quick", "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert f"## {name}: " in done.stdout
    assert name == json.loads((tmp_path / f"{name}.json").read_text())["name"]


@pytest.mark.parametrize("name", ["cluster", "rate_limiter", "sync_task"])
def test_a_benchmark_that_needs_redis_has_one_of_its_own(name: str, need_server: NeedServer, tmp_path: Path) -> None:
    """
    Those can be tried in seconds, too.
    """
    need_server("redis-server")

    test_a_quick_run_prints_a_table_and_writes_its_numbers(name, tmp_path)


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    """
    A mistyped name ends with the list of benchmarks.
    """
    done = subprocess.run([sys.executable, "-m", "benchmarks", "hoks"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert 2 == done.returncode
    assert "There is no benchmark hoks. Expected some of: hooks, pool_child," in done.stderr
