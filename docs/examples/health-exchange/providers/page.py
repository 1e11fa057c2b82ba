"""
Providers on the sidecar's page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from .metrics import DATA_POINTS


__all__ = ["facts"]


def facts(samples: Any) -> Iterable[tuple[str, str]]:
    """
    Tell how many measurements of each provider were taken, and how many refused.
    """
    totals: Counter[tuple[str, str]] = Counter()
    for (provider, _, status), count in samples.of(DATA_POINTS).items():
        totals[provider, status] += count
    return [(f"{provider}, {status}", f"{count:.0f} measurements") for (provider, status), count in sorted(totals.items())]
