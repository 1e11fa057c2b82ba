"""
Newsletters on the sidecar's page.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .metrics import DELIVERIES


__all__ = ["facts"]


def facts(samples: Any) -> Iterable[tuple[str, str]]:
    """
    Tell how many deliveries ended how.
    """
    return [(status, f"{count:.0f} deliveries") for (status,), count in samples.of(DELIVERIES).items()]
