"""
Deliveries on the sidecar's page.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .metrics import DELIVERIES


__all__ = ["facts"]


def facts(samples: Any) -> Iterable[tuple[str, str]]:
    """
    Tell how many deliveries each channel took, and how many it refused.
    """
    return [(f"{channel}, {status}", f"{count:.0f} deliveries") for (channel, status), count in sorted(samples.of(DELIVERIES).items())]
