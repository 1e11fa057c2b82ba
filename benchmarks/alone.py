"""
Run one benchmark in this process: what ``python -m benchmarks`` starts for each.
"""

from __future__ import annotations

import importlib
import sys

from pathlib import Path

from .harness import save, show


def main() -> None:
    """
    Measure, print, write.
    """
    name, out, *options = sys.argv[1:]
    report = importlib.import_module(f"benchmarks.{name}").measure(quick="--quick" in options)
    show(report)
    save(report, Path(out))


if __name__ == "__main__":
    main()
