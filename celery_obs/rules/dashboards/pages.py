"""
All dashboards: those about the whole, and those of each area; and their files.
"""

from __future__ import annotations

import warnings

from collections.abc import Callable, Iterator
from typing import Final

from celery_obs.areas import parts
from celery_obs.rules.links import Links
from celery_obs.rules.render import NotBuiltError, Output

from .budgets import SLO
from .business import BUSINESS
from .contributions import completed
from .infrastructure import INFRASTRUCTURE
from .model import Dashboard


__all__ = ["DASHBOARDS", "FOLDER", "build"]


DASHBOARDS: Final[tuple[Dashboard, ...]] = (
    *(completed(page) for _, part in parts("dashboards") for page in part.DASHBOARDS),
    *map(completed, (SLO, INFRASTRUCTURE, BUSINESS)),
)
"""
All pages, in the order in which a reader meets them.
"""

FOLDER: Final = "deploy/grafana/dashboards"


def build(links: Links) -> Iterator[Output]:
    """
    Write every page.

    Raises:
        NotBuiltError: where Grafana's SDK is not installed.
    """
    to_json = _writer()
    for page in DASHBOARDS:
        yield Output(f"{FOLDER}/{page.uid}.json", to_json(page))


def _writer() -> Callable[[Dashboard], str]:
    try:
        with warnings.catch_warnings():
            # The SDK would have everybody write the schema that only the newest Grafana reads; this one all of them read.
            warnings.filterwarnings("ignore", message="Prefer using dashboardv2", category=DeprecationWarning)
            from .grafana import to_json  # noqa: PLC0415 -- of an extra.
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "grafana_foundation_sdk":
            raise
        message = "The dashboards are left as they are: writing them needs Grafana's SDK, on Python 3.11 or newer. Install it with: pip install 'celery_obs[dashboards]'"
        raise NotBuiltError(message) from error
    return to_json
