"""
Run benchmarks: ``python -m benchmarks [NAMES...] [--quick] [--out DIR]``.

Each runs in a process of its own, so that none inherits what another connected or imported.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from pathlib import Path
from typing import Final

from .harness import RESULTS, fast_folder


NAMES: Final = (
    "hooks",
    "pool_child",
    "publish",
    "dispatch",
    "logs",
    "traces",
    "worker_cpu",
    "scrape",
    "history",
    "fork",
    "exporter_memory",
    "sync_run",
    "sync_task",
    "circuit_breaker",
    "rate_limiter",
    "cluster",
    "reconciliation",
    "errors",
)


def main() -> int:
    """
    Run what was asked for, one after the other; return how many failed.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what observing costs, beside the alternatives.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run: {', '.join(NAMES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="few and short rounds, to see that it runs; the numbers mean little")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="where the JSON goes; benchmarks/results by default")
    wanted = parser.parse_args()
    unknown = sorted(set(wanted.names) - set(NAMES))
    if unknown:
        parser.error(f"There is no benchmark {', '.join(unknown)}. Expected some of: {', '.join(NAMES)}.")
    return sum(_run(name, quick=wanted.quick, out=wanted.out) for name in wanted.names or NAMES)


def _run(name: str, *, quick: bool, out: Path) -> bool:
    """
    Run one benchmark in a fresh interpreter; tell whether it failed.
    """
    with fast_folder() as folder:
        # prometheus_client chooses at import whether it shares metrics between processes, so the variable has to be there before.
        env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
        command = [sys.executable, "-m", "benchmarks.alone", name, str(out.resolve()), *(["--quick"] if quick else [])]
        return subprocess.run(command, env=env, check=False).returncode != 0


if __name__ == "__main__":
    sys.exit(main())
