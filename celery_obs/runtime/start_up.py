"""
Start-up that fails: one paragraph and an end, for the person who started the process.
"""

from __future__ import annotations

import contextlib
import logging
import sys

from collections.abc import Iterator

from celery_obs.exceptions import CeleryObsError


__all__ = ["fatal"]


@contextlib.contextmanager
def fatal() -> Iterator[None]:
    """
    End the process where something of ours cannot work.

    Raises:
        SystemExit: in the place of our own errors and the system's.
    """
    try:
        yield
    except (CeleryObsError, OSError) as error:
        _say_last(f"celery_obs: {error}")
        raise SystemExit(1) from None


def _say_last(message: str) -> None:
    """
    Say why the process ends, in its log and on its standard error, once where these are the same.

    By now Celery may have made a logger of ``sys.stderr``, and with ``-l ERROR`` what is written there is lost.
    """
    log = logging.getLogger("celery_obs")
    if log.hasHandlers():
        log.critical("%s", message)
    stream = sys.__stderr__
    if stream is not None and not any(getattr(handler, "stream", None) is stream for handler in logging.getLogger().handlers):
        with contextlib.suppress(OSError, ValueError):  # A daemon's is closed.
            stream.write(message + "\n")
            stream.flush()
